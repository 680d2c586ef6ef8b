//! What the log says of a sample's road through the outbox, each step only once the commit that
//! makes it true is on the disk: an identity that was never committed is given to another sample.
//!
//! The field `sample` is the id as [`SampleId`] displays it, here and at the hub; per-sample steps
//! that went well are at debug.

use fleetloop_protocol::receipt::{Receipt, Subject};
use fleetloop_protocol::sample::Selection;
use fleetloop_protocol::{Digest, SampleId};

use super::{Draft, Settled};

/// What an append came to.
pub(super) struct Appended {
    pub id: SampleId,
    /// The header's body digest: the sample's name at the hub.
    pub digest: Digest,
    /// What had to go for it.
    pub evicted: Vec<SampleId>,
}

impl Appended {
    /// Logs what was stored and what went.
    pub(super) fn log(&self, draft: &Draft) {
        let why = match draft.selection {
            Selection::Random { .. } => "random",
            Selection::Uncertain { .. } => "uncertain",
        };
        let (captured_at_ms, bytes) = (draft.captured_at.0, draft.payload.len());
        tracing::debug!(
            sample = %self.id, digest = %self.digest, model = %draft.model, why, captured_at_ms, bytes,
            "sample stored"
        );
        evicted(&self.evicted);
    }
}

/// Logs what went at a limit.
pub(super) fn evicted(samples: &[SampleId]) {
    for sample in samples {
        tracing::debug!(%sample, "sample evicted");
    }
}

/// Logs what a receipt came to.
pub(super) fn settled(receipt: &Receipt, settled: Settled) {
    if let (Subject::Sample(sample), Settled::Deleted) = (&receipt.subject, settled) {
        tracing::debug!(%sample, digest = %receipt.digest, "sample receipted");
    }
}
