//! Every file of the fuzzer's seeds for the decoders of this crate keeps its verdict.

#[path = "../../fuzz/src/graph.rs"]
mod graph;
#[path = "../../fuzz/src/idx.rs"]
mod idx;
#[path = "../../fuzz/src/manifest.rs"]
mod manifest;
#[path = "../../fuzz/src/picture.rs"]
mod picture;
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;

#[test]
fn every_manifest_of_the_fuzzers_seeds_keeps_its_verdict() {
    seeds::replay("manifest", manifest::attempt);
}

#[test]
fn every_graph_of_the_fuzzers_seeds_keeps_its_verdict() {
    seeds::replay("graph", graph::attempt);
}

#[test]
fn every_idx_file_of_the_fuzzers_seeds_keeps_its_verdict() {
    seeds::replay("idx", idx::attempt);
}

#[test]
fn every_picture_of_the_fuzzers_seeds_keeps_its_verdict() {
    seeds::replay("picture", picture::attempt);
}
