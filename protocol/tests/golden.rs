//! The bytes of one value of each message and version: what was written then reads now, and is
//! written the same. A missing file is made with `FLEETLOOP_GOLDEN=make`; one that exists is never
//! overwritten, for the bytes are frozen.

mod common;

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use common::*;
use fleetloop_protocol::sample::{Payload, SampleHeader, SampleMessage, VerifiedSample};
use fleetloop_protocol::signed::{Signable, Signed, Verified};
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::v2;
use fleetloop_protocol::wire::{self, Frozen as _, Two, Wire};

#[expect(clippy::disallowed_methods, reason = "a test fixture, not a durable file")]
fn golden(name: &str, version: u8, bytes: &[u8]) -> Vec<u8> {
    let path = format!("tests/golden/v{version}/{name}.bin");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if !path.exists() && std::env::var("FLEETLOOP_GOLDEN").is_ok_and(|v| v == "make") {
        fs::write(&path, bytes).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `version` is what is written to a peer that reads it, and a peer of any newer build is written
/// the same.
fn plain<T: Wire + PartialEq + Debug>(name: &str, version: u8, value: &T) {
    let bytes = wire::encode_for(value, version).unwrap();
    assert_eq!(bytes[0], version, "{name}");
    assert_eq!(wire::encode_for(value, wire::VERSION).unwrap(), bytes, "{name}");
    let golden = golden(name, version, &bytes);
    assert_eq!(bytes, golden, "{name} is written otherwise than version {version} was");
    assert_eq!(&wire::decode::<T>(&golden).unwrap(), value, "{name} reads otherwise");
}

fn signed<T: Signable + PartialEq + Debug>(name: &str, version: u8, value: &T) {
    plain(name, version, value);
    let key = key(1);
    let sealed = Signed::seal_for(value, &device(), &key, version).unwrap();
    let golden = golden(&format!("{name}.signed"), version, sealed.as_bytes());
    assert_eq!(sealed.as_bytes(), golden, "{name} is signed otherwise than version {version} was");
    let opened = Verified::<T>::open(&golden, &device(), &ring(&[&key])).unwrap();
    assert_eq!(opened.get(), value);
    assert_eq!(opened.body_digest(), sealed.body_digest());
}

#[test]
fn every_message_is_written_and_read_as_version_1_was() {
    signed("sample_header", 1, &header());
    signed("gap", 1, &gap());
    signed("receipt", 1, &receipt());
    signed("receipt_gap", 1, &gap_receipt());
    signed("refusal", 1, &refusal());
    signed("telemetry", 1, &telemetry());
    signed("reported", 1, &reported());
    signed("desired", 1, &desired());
    plain("enrolment_token", 1, &token());
}

#[test]
fn what_has_a_second_form_is_written_and_read_as_version_2_was() {
    signed("refusal_payload_missing", 2, &missing());
    signed("telemetry_of_input", 2, &telemetry_of_input());
    let message = uploaded(&header(), &key(1));
    plain("sample_uploaded", 2, &message);
    let bytes = wire::encode_for(&message, 2).unwrap();
    let opened = VerifiedSample::open(&bytes, &device(), &ring(&[&key(1)])).unwrap();
    assert_eq!((opened.payload(), opened.salt()), (&Payload::Uploaded, &SALT));
}

#[test]
fn a_hub_of_version_1_is_told_everything_but_the_input() {
    let bytes = wire::encode_for(&telemetry_of_input(), 1).unwrap();
    assert_eq!(wire::decode::<Telemetry>(&bytes).unwrap(), telemetry());
}

#[test]
fn an_inline_payload_is_read_in_version_2_as_well() {
    let SampleMessage { envelope, salt, .. } = sample(&header(), &key(1));
    let payload = v2::Payload::Inline(PAYLOAD.to_vec());
    let form: <SampleMessage as Wire>::Frozen =
        Two::V2(v2::SampleMessage { envelope, salt, payload });
    let mut bytes = vec![2];
    form.write(&mut bytes).unwrap();
    let golden = golden("sample_inline", 2, &bytes);
    assert_eq!(bytes, golden);
    assert_eq!(wire::decode::<SampleMessage>(&golden).unwrap(), sample(&header(), &key(1)));
}

#[test]
fn a_sample_is_written_and_read_as_version_1_was() {
    let message = sample(&header(), &key(1));
    let bytes = wire::encode(&message).unwrap();
    let golden = golden("sample", 1, &bytes);
    assert_eq!(bytes, golden);
    assert_eq!(wire::decode::<SampleMessage>(&golden).unwrap(), message);
    let opened = VerifiedSample::open(&golden, &device(), &ring(&[&key(1)])).unwrap();
    assert_eq!(opened.header().get() as &SampleHeader, &header());
    assert_eq!((opened.payload().inline(), opened.salt()), (Some(PAYLOAD), &SALT));
}

#[test]
fn a_token_is_written_and_read_as_version_1_was() {
    let text = token().to_string();
    let golden = golden("enrolment_token.text", 1, text.as_bytes());
    assert_eq!(text.as_bytes(), golden);
    assert_eq!(text.parse(), Ok(token()));
}
