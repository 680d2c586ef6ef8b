//! Every file of the fuzzer's seeds for the decoders of this crate keeps its verdict.

#[path = "../../fuzz/src/config.rs"]
mod config;
#[path = "../../fuzz/src/metadata.rs"]
mod metadata;
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;

#[test]
fn every_configuration_of_the_fuzzers_seeds_keeps_its_verdict() {
    seeds::replay("config", config::attempt);
}

#[test]
fn all_metadata_of_the_fuzzers_seeds_keeps_its_verdict() {
    seeds::replay("metadata", metadata::attempt);
}
