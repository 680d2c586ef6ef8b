//! What is done with bytes that come over MQTT: read as every message there is, opened as every signed
//! one, and taken for a topic; and with the salt that comes with an upload.
//!
//! The fuzz target and the test that runs every file of `seeds/wire/` share this file.

use fleetloop_protocol::DeviceId;
use fleetloop_protocol::gap::Gap;
use fleetloop_protocol::keys::{KeyRing, SigningKey};
use fleetloop_protocol::limits::PAYLOAD_BYTES;
use fleetloop_protocol::receipt::{Receipt, Refusal};
use fleetloop_protocol::sample::{SampleHeader, SampleMessage, VerifiedSample};
use fleetloop_protocol::signed::{Signable, Verified};
use fleetloop_protocol::state::{Desired, Reported};
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::token::EnrolmentToken;
use fleetloop_protocol::topic::Topic;
use fleetloop_protocol::upload;
use fleetloop_protocol::wire::{self, Wire};

/// A fixed key (PKCS#8 version 1 of RFC 8410, section 7), the one that signed the golden messages.
const KEY: [u8; 48] = {
    let head =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 4, 32];
    let mut bytes = [1; 48];
    let mut at = 0;
    while at < head.len() {
        bytes[at] = head[at];
        at += 1;
    }
    bytes
};

/// Who speaks or is spoken to, and whose signatures hold.
struct Peer {
    device: DeviceId,
    ring: KeyRing,
}

/// Reads `bytes` as everything; whether they are anything.
///
/// # Panics
/// When something that was read is written or read otherwise the second time.
pub fn attempt(bytes: &[u8]) -> bool {
    thread_local! {
        static PEER: Peer = {
            let key = SigningKey::from_pkcs8(&KEY).expect("a fixed key");
            let device = "dev-abcdefghij".parse().expect("a fixed name");
            Peer { device, ring: [key.public()].into_iter().collect() }
        };
    }
    PEER.with(|peer| {
        let read = [
            plain::<SampleMessage>(bytes),
            plain::<EnrolmentToken>(bytes),
            signed::<SampleHeader>(bytes, peer),
            signed::<Gap>(bytes, peer),
            signed::<Receipt>(bytes, peer),
            signed::<Refusal>(bytes, peer),
            signed::<Telemetry>(bytes, peer),
            signed::<Reported>(bytes, peer),
            signed::<Desired>(bytes, peer),
            sample(bytes, peer),
            topic(bytes),
            salt(bytes),
        ];
        read.contains(&true)
    })
}

/// What is read can be written, in no more bytes, and is then written and read the same for ever. The
/// bytes themselves may differ: an integer can be written longer than it need be.
fn again<T: Wire + PartialEq>(value: &T, len: usize) {
    let written = wire::encode(value).expect("what was read can be written");
    assert!(written.len() <= len, "{} grows from {len} to {} bytes", T::NAME, written.len());
    let read = wire::decode::<T>(&written).expect("what was written can be read");
    assert!(read == *value, "{} is read otherwise the second time", T::NAME);
}

fn plain<T: Wire + PartialEq>(bytes: &[u8]) -> bool {
    wire::decode::<T>(bytes).is_ok_and(|value| {
        again(&value, bytes.len());
        true
    })
}

/// As a body and as an envelope.
fn signed<T: Signable + PartialEq>(bytes: &[u8], peer: &Peer) -> bool {
    let body = plain::<T>(bytes);
    let envelope = Verified::<T>::open(bytes, &peer.device, &peer.ring).is_ok_and(|opened| {
        assert_eq!(opened.envelope(), bytes);
        true
    });
    body || envelope
}

fn sample(bytes: &[u8], peer: &Peer) -> bool {
    VerifiedSample::open(bytes, &peer.device, &peer.ring).is_ok_and(|sample| {
        let len = sample.header().get().payload_len as usize;
        assert!(len <= PAYLOAD_BYTES);
        assert!(sample.payload().inline().is_none_or(|payload| payload.len() == len));
        true
    })
}

/// The header that an upload carries.
fn salt(bytes: &[u8]) -> bool {
    let Some(salt) = std::str::from_utf8(bytes).ok().and_then(upload::salt) else { return false };
    assert_eq!(upload::salt_text(salt).as_bytes(), bytes.to_ascii_lowercase());
    true
}

fn topic(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    Topic::parse(text).is_ok_and(|topic| {
        assert_eq!(topic.to_string(), text);
        true
    })
}
