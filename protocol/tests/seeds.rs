//! Every file of the fuzzer's seeds for the decoders of this crate keeps its verdict.

#[path = "../../fuzz/src/document.rs"]
mod document;
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../../fuzz/src/token.rs"]
mod token;
#[path = "../../fuzz/src/wire.rs"]
mod wire;

#[test]
fn every_message_of_the_fuzzers_seeds_keeps_its_verdict() {
    seeds::replay("wire", wire::attempt);
}

#[test]
fn every_golden_message_is_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut read = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let is_token = path.ends_with("enrolment_token.text.bin");
        let attempt = if is_token { token::attempt } else { wire::attempt };
        assert!(attempt(&bytes), "{}", path.display());
        read += 1;
    }
    assert!(read >= 22, "only {read} golden messages");
}

#[test]
fn every_token_of_the_fuzzers_seeds_keeps_its_verdict() {
    seeds::replay("token", token::attempt);
}

#[test]
fn every_document_of_the_fuzzers_seeds_keeps_its_verdict() {
    seeds::replay("document", document::attempt);
}
