//! The wire format, version [`crate::wire::VERSION`]: one plain struct or enum for each message.
//!
//! The order and the types of the fields are the format (`bincode` writes no names). The domain
//! types may change; these may not, unless the version changes with them. The golden files in
//! `tests/golden/` hold the bytes of one value of each.

use bincode::{Decode, Encode};

use crate::sketch::{CONFIDENCE_BINS, INPUT_BINS};

/// See [`crate::signed`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Envelope {
    pub purpose: u8,
    pub device: String,
    pub key: [u8; 32],
    pub body: Vec<u8>,
    pub signature: [u8; 64],
}

/// See [`crate::ids::SampleId`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct SampleId {
    pub device: String,
    pub epoch: u64,
    pub sequence: u64,
}

/// See [`crate::sample::SampleHeader`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct SampleHeader {
    pub id: SampleId,
    pub previous: [u8; 32],
    pub captured_at_ms: u64,
    pub clock_synced: bool,
    pub model: [u8; 32],
    pub config: [u8; 32],
    pub media_type: String,
    pub payload_len: u32,
    pub commitment: [u8; 32],
    pub selection: Selection,
    pub predictions: Vec<Prediction>,
}

/// See [`crate::sample::Selection`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub enum Selection {
    Uncertain { score: f32 },
    Random { rate: f32 },
}

/// See [`crate::sample::Prediction`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Prediction {
    pub class: u16,
    pub probability: f32,
}

/// See [`crate::sample::SampleMessage`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct SampleMessage {
    pub envelope: Vec<u8>,
    pub salt: [u8; 16],
    pub payload: Payload,
}

/// See [`crate::sample::Payload`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each variant")]
pub enum Payload {
    Inline(Vec<u8>),
    Uploaded,
}

/// See [`crate::gap::Gap`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Gap {
    pub device: String,
    pub epoch: u64,
    pub from: u64,
    pub to: u64,
    pub before: [u8; 32],
    pub after: [u8; 32],
    pub reason: GapReason,
}

/// See [`crate::gap::GapReason`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each variant")]
pub enum GapReason {
    OutboxFull,
    Refused,
    Damaged,
}

/// See [`crate::receipt::Subject`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub enum Subject {
    Sample(SampleId),
    Gap { epoch: u64, from: u64, to: u64 },
}

/// See [`crate::receipt::Receipt`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Receipt {
    pub subject: Subject,
    pub digest: [u8; 32],
    pub stored_at_ms: u64,
}

/// See [`crate::receipt::Refusal`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Refusal {
    pub message: [u8; 32],
    pub reason: RefusalReason,
    pub detail: String,
    pub retry_after_s: Option<u32>,
}

/// See [`crate::receipt::RefusalReason`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each variant")]
pub enum RefusalReason {
    Malformed,
    UnknownVersion,
    TooLarge,
    NotTrusted,
    Conflict,
    StorageFull,
    Busy,
    PayloadMissing,
    Content,
}

/// See [`crate::telemetry::Telemetry`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Telemetry {
    pub model: Option<[u8; 32]>,
    pub at_ms: u64,
    pub window_s: u32,
    pub frames_in: u64,
    pub frames_answered: u64,
    pub frames_dropped: u64,
    pub samples_selected: u64,
    pub samples_evicted: u64,
    pub samples_receipted: u64,
    pub outbox_rows: u64,
    pub outbox_bytes: u64,
    pub dead_letters: u64,
    pub peak_rss_bytes: u64,
    pub latency_us_p50: u32,
    pub latency_us_p99: u32,
    pub sketch: Sketch,
}

/// See [`crate::sketch::Sketch`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Sketch {
    pub classes: Vec<u64>,
    pub confidence: [u64; CONFIDENCE_BINS],
    pub brightness: [u64; INPUT_BINS],
    pub contrast: [u64; INPUT_BINS],
}

/// See [`crate::state::Reported`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Reported {
    pub generation: u64,
    pub start: u64,
    pub epoch: u64,
    pub agent_version: String,
    pub at_ms: u64,
    pub clock_synced: bool,
    pub running: Option<[u8; 32]>,
    pub update: Update,
    pub addresses: u64,
    pub stopping: bool,
}

/// See [`crate::state::Update`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub enum Update {
    Idle,
    Installing { bundle: [u8; 32] },
    Failed { bundle: [u8; 32], reason: String },
}

/// See [`crate::state::Desired`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Desired {
    pub generation: u64,
    pub at_ms: u64,
    pub assignment: Option<Assignment>,
}

/// See [`crate::state::Assignment`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Assignment {
    pub target: String,
    pub bundle: [u8; 32],
}

/// See [`crate::token::EnrolmentToken`].
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct EnrolmentToken {
    pub hub: String,
    pub secret: [u8; 32],
    pub ca: [u8; 32],
    pub root: [u8; 32],
}
