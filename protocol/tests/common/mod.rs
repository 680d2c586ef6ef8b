//! One value of each message, and keys that are the same in every run.
#![allow(dead_code, reason = "each test file uses its part")]

use fleetloop_protocol::gap::{Gap, GapReason};
use fleetloop_protocol::keys::{KeyRing, SigningKey};
use fleetloop_protocol::receipt::{Receipt, Refusal, RefusalReason, Subject};
use fleetloop_protocol::sample::{
    MediaType, Payload, Prediction, SampleHeader, SampleMessage, Selection, commitment,
};
use fleetloop_protocol::signed::Signed;
use fleetloop_protocol::sketch::{CONFIDENCE_BINS, Histogram, INPUT_BINS, Sketch};
use fleetloop_protocol::state::{Assignment, Desired, Reported, Update};
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::token::EnrolmentToken;
use fleetloop_protocol::{
    BundleDigest, ClockState, DeviceId, Digest, Epoch, Generation, SampleId, Sequence, UnixMillis,
};

/// The key of a seed: PKCS#8 version 1 of RFC 8410, section 7.
pub fn key(seed: u8) -> SigningKey {
    let mut pkcs8 = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    pkcs8.extend_from_slice(&[seed; 32]);
    SigningKey::from_pkcs8(&pkcs8).unwrap()
}

pub fn ring(keys: &[&SigningKey]) -> KeyRing {
    keys.iter().map(|key| key.public()).collect()
}

pub fn device() -> DeviceId {
    "dev-abcdefghij".parse().unwrap()
}

pub const SALT: [u8; 16] = [7; 16];
pub const PAYLOAD: &[u8] = b"a frame";

pub fn header() -> SampleHeader {
    SampleHeader {
        id: SampleId {
            device: device(),
            epoch: Epoch(0x0123_4567_89ab_cdef),
            sequence: Sequence(41),
        },
        previous: Digest::of(b"the header before"),
        captured_at: UnixMillis(1_790_000_000_123),
        clock: ClockState::Synced,
        model: BundleDigest(Digest::of(b"bundle")),
        config: Digest::of(b"config"),
        media_type: MediaType::Png,
        payload_len: PAYLOAD.len() as u32,
        commitment: commitment(&SALT, PAYLOAD),
        selection: Selection::Uncertain { score: 0.75 },
        predictions: vec![
            Prediction { class: 3, probability: 0.5 },
            Prediction { class: 0, probability: 0.25 },
        ],
    }
}

pub fn sample(header: &SampleHeader, key: &SigningKey) -> SampleMessage {
    let sealed = Signed::seal(header, &header.id.device, key).unwrap();
    SampleMessage::new(sealed, SALT, Payload::Inline(PAYLOAD.to_vec()))
}

/// The same, with the payload uploaded before.
pub fn uploaded(header: &SampleHeader, key: &SigningKey) -> SampleMessage {
    SampleMessage { payload: Payload::Uploaded, ..sample(header, key) }
}

pub fn gap() -> Gap {
    Gap {
        device: device(),
        epoch: Epoch(9),
        from: Sequence(5),
        to: Sequence(7),
        before: Digest::of(b"header 4"),
        after: Digest::of(b"header 7"),
        reason: GapReason::OutboxFull,
    }
}

pub fn receipt() -> Receipt {
    Receipt {
        subject: Subject::Sample(header().id),
        digest: Digest::of(b"header 41"),
        stored_at: UnixMillis(1_790_000_001_000),
    }
}

pub fn gap_receipt() -> Receipt {
    Receipt {
        subject: Subject::Gap { epoch: Epoch(9), from: Sequence(5), to: Sequence(7) },
        digest: Digest::of(b"the gap"),
        stored_at: UnixMillis(1_790_000_001_001),
    }
}

pub fn refusal() -> Refusal {
    Refusal::new(Digest::of(b"a message"), RefusalReason::StorageFull, "disk above its floor", 60)
}

pub fn missing() -> Refusal {
    Refusal::new(Digest::of(b"a message"), RefusalReason::PayloadMissing, "upload it again", 5)
}

pub fn telemetry() -> Telemetry {
    Telemetry {
        model: Some(BundleDigest(Digest::of(b"bundle"))),
        at_ms: 1_790_000_002_000,
        window_s: 10,
        frames_in: 1_000,
        frames_answered: 999,
        frames_dropped: 1,
        samples_selected: 12,
        samples_evicted: 2,
        samples_receipted: 30,
        outbox_rows: 3,
        outbox_bytes: 4_567,
        dead_letters: 1,
        peak_rss_bytes: 40_000_000,
        latency_us_p50: 310,
        latency_us_p99: 900,
        sketch: Sketch {
            classes: vec![600, 399],
            confidence: bins(CONFIDENCE_BINS, 0),
            brightness: bins(INPUT_BINS, 1),
            contrast: bins(INPUT_BINS, 300),
        },
    }
}

fn bins<const N: usize>(bins: usize, first: u64) -> Histogram<N> {
    (first..).take(bins).collect::<Vec<u64>>().try_into().unwrap()
}

pub fn reported() -> Reported {
    Reported {
        generation: Generation(4),
        start: 77,
        epoch: Epoch(0x6b49_d200_0000_0001),
        agent_version: "0.1.0".to_owned(),
        at: UnixMillis(1_790_000_003_000),
        clock: ClockState::Unsynced,
        running: Some(BundleDigest(Digest::of(b"old bundle"))),
        update: Update::Failed {
            bundle: BundleDigest(Digest::of(b"bundle")),
            reason: "golden case 3 is off by 0.12".to_owned(),
        },
        addresses: 1_790_000_002,
        stopping: false,
    }
}

pub fn desired() -> Desired {
    Desired {
        generation: Generation(5),
        at: UnixMillis(1_790_000_004_000),
        assignment: Some(Assignment {
            target: "fashion/3/bundle.toml".to_owned(),
            bundle: BundleDigest(Digest::of(b"bundle")),
        }),
    }
}

pub fn token() -> EnrolmentToken {
    EnrolmentToken {
        hub: "https://hub.example:8443".to_owned(),
        secret: [5; 32],
        ca: Digest::of(b"ca"),
        root: Digest::of(b"root"),
    }
}
