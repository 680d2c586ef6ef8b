//! The bytes of one value of each message: they are written the same by every build, and are read
//! as the same value.
//!
//! A missing file is made with `FLEETLOOP_GOLDEN=make`. A file that exists is never overwritten: to
//! change a form on purpose, delete its files first.

mod common;

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use common::*;
use fleetloop_protocol::sample::{Payload, SampleMessage, VerifiedSample};
use fleetloop_protocol::signed::{Signable, Signed, Verified};
use fleetloop_protocol::wire::{self, VERSION, Wire};

#[expect(clippy::disallowed_methods, reason = "a test fixture, not a durable file")]
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = format!("tests/golden/{name}.bin");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if !path.exists() && std::env::var("FLEETLOOP_GOLDEN").is_ok_and(|v| v == "make") {
        fs::write(&path, bytes).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn plain<T: Wire + PartialEq + Debug>(name: &str, value: &T) {
    let bytes = wire::encode(value).unwrap();
    assert_eq!(bytes[0], VERSION, "{name}");
    let golden = golden(name, &bytes);
    assert_eq!(bytes, golden, "{name} is written differently");
    assert_eq!(&wire::decode::<T>(&golden).unwrap(), value, "{name} is read differently");
}

fn signed<T: Signable + PartialEq + Debug>(name: &str, value: &T) {
    plain(name, value);
    let key = key(1);
    let sealed = Signed::seal(value, &device(), &key).unwrap();
    let golden = golden(&format!("{name}.signed"), sealed.as_bytes());
    assert_eq!(sealed.as_bytes(), golden, "{name} is signed differently");
    let opened = Verified::<T>::open(&golden, &device(), &ring(&[&key])).unwrap();
    assert_eq!(opened.get(), value);
    assert_eq!(opened.body_digest(), sealed.body_digest());
}

#[test]
fn every_message_is_written_and_read_as_its_golden_file() {
    signed("sample_header", &header());
    signed("gap", &gap());
    signed("receipt", &receipt());
    signed("receipt_gap", &gap_receipt());
    signed("refusal", &refusal());
    signed("refusal_payload_missing", &missing());
    signed("telemetry", &telemetry());
    signed("reported", &reported());
    signed("desired", &desired());
    plain("enrolment_token", &token());
}

#[test]
fn a_sample_is_written_and_read_as_its_golden_file() {
    let inline = (sample(&header(), &key(1)), Payload::Inline(PAYLOAD.to_vec()));
    let uploaded = (uploaded(&header(), &key(1)), Payload::Uploaded);
    for (name, (message, payload)) in [("sample", inline), ("sample_uploaded", uploaded)] {
        plain::<SampleMessage>(name, &message);
        let bytes = wire::encode(&message).unwrap();
        let opened = VerifiedSample::open(&bytes, &device(), &ring(&[&key(1)])).unwrap();
        assert_eq!(opened.header().get(), &header());
        assert_eq!((opened.payload(), opened.salt()), (&payload, &SALT));
    }
}

#[test]
fn a_token_is_written_and_read_as_its_golden_file() {
    let text = token().to_string();
    let golden = golden("enrolment_token.text", text.as_bytes());
    assert_eq!(text.as_bytes(), golden);
    assert_eq!(text.parse(), Ok(token()));
}
