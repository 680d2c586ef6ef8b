//! The bytes of one value of each message, version 1: what was written then reads now, and is
//! written the same. A missing file is made with `FLEETLOOP_GOLDEN=make`; one that exists is never
//! overwritten, for the bytes are frozen.

mod common;

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use common::*;
use fleetloop_protocol::sample::{SampleHeader, SampleMessage, VerifiedSample};
use fleetloop_protocol::signed::{Signable, Signed, Verified};
use fleetloop_protocol::wire::{self, Wire};

#[expect(clippy::disallowed_methods, reason = "a test fixture, not a durable file")]
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v1/{name}.bin"));
    if !path.exists() && std::env::var("FLEETLOOP_GOLDEN").is_ok_and(|v| v == "make") {
        fs::write(&path, bytes).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn plain<T: Wire + PartialEq + Debug>(name: &str, value: &T) {
    let bytes = wire::encode(value).unwrap();
    let golden = golden(name, &bytes);
    assert_eq!(bytes, golden, "{name} is written otherwise than version 1 was");
    assert_eq!(&wire::decode::<T>(&golden).unwrap(), value, "{name} reads otherwise");
}

fn signed<T: Signable + PartialEq + Debug>(name: &str, value: &T) {
    plain(name, value);
    let key = key(1);
    let sealed = Signed::seal(value, &device(), &key).unwrap();
    let golden = golden(&format!("{name}.signed"), sealed.as_bytes());
    assert_eq!(sealed.as_bytes(), golden, "{name} is signed otherwise than version 1 was");
    let opened = Verified::<T>::open(&golden, &device(), &ring(&[&key])).unwrap();
    assert_eq!(opened.get(), value);
    assert_eq!(opened.body_digest(), sealed.body_digest());
}

#[test]
fn every_message_is_written_and_read_as_version_1_was() {
    signed("sample_header", &header());
    signed("gap", &gap());
    signed("receipt", &receipt());
    signed("receipt_gap", &gap_receipt());
    signed("refusal", &refusal());
    signed("telemetry", &telemetry());
    signed("reported", &reported());
    signed("desired", &desired());
    plain("enrolment_token", &token());
}

#[test]
fn a_sample_is_written_and_read_as_version_1_was() {
    let message = sample(&header(), &key(1));
    let bytes = wire::encode(&message).unwrap();
    let golden = golden("sample", &bytes);
    assert_eq!(bytes, golden);
    assert_eq!(wire::decode::<SampleMessage>(&golden).unwrap(), message);
    let opened = VerifiedSample::open(&golden, &device(), &ring(&[&key(1)])).unwrap();
    assert_eq!(opened.header().get() as &SampleHeader, &header());
    assert_eq!((opened.payload(), opened.salt()), (PAYLOAD, &SALT));
}

#[test]
fn a_token_is_written_and_read_as_version_1_was() {
    let text = token().to_string();
    let golden = golden("enrolment_token.text", text.as_bytes());
    assert_eq!(text.as_bytes(), golden);
    assert_eq!(text.parse(), Ok(token()));
}
