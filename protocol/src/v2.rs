//! Wire version 2, frozen as [`crate::v1`] is: only the messages that have a second form.
//!
//! A build that reads version 2 reads all of these. What a message does not change from version 1
//! it goes on writing as version 1.

use bincode::{Decode, Encode};

use crate::v1;

/// See [`crate::sample::SampleMessage`]. Beside version 1: the payload may have been uploaded.
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

/// See [`crate::receipt::Refusal`]. Beside version 1: one more reason.
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
}

/// See [`crate::telemetry::Telemetry`]. Beside version 1: what the frames were like.
#[derive(Debug, Encode, Decode)]
#[expect(missing_docs, reason = "the domain type documents each field")]
pub struct Telemetry {
    pub counted: v1::Telemetry,
    pub brightness: Vec<u64>,
    pub contrast: Vec<u64>,
}
