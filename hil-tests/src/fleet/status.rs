//! What a device says of itself: `edge-agent status --json`, as far as scenarios look at it.

use anyhow::{Result, ensure};
use fleetloop_protocol::BundleDigest;
use serde::Deserialize;

/// A device's status.
#[derive(Debug, Clone, Deserialize)]
pub struct AgentStatus {
    /// In one word: `answering`, `stopped`, …
    pub state: String,
    /// The model that answers.
    pub model: Option<Model>,
    /// The outbox; none when its file cannot be read now.
    pub outbox: Option<Waiting>,
    /// What only a running agent knows.
    pub running: Option<Running>,
}

/// A model.
#[derive(Debug, Clone, Deserialize)]
pub struct Model {
    /// Its digest.
    pub digest: BundleDigest,
}

/// An outbox.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Waiting {
    /// Which life of the file.
    pub epoch: u64,
    /// Samples that wait for a receipt.
    pub samples: u64,
    /// Records of gaps that wait for a receipt.
    pub gaps: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Samples signed and stored in this file's life.
    pub samples_signed_total: u64,
    /// Samples with a receipt in this file's life.
    pub samples_receipted_total: u64,
    /// Whether the disk refuses.
    pub paused: bool,
}

/// A running agent.
#[derive(Debug, Clone, Deserialize)]
pub struct Running {
    /// Its frames.
    pub frames: Frames,
    /// Its link.
    pub link: Link,
}

/// The link.
#[derive(Debug, Clone, Deserialize)]
pub struct Link {
    /// Whether the broker answers.
    pub connected: bool,
}

/// Frames since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Frames {
    /// Arrived.
    pub frames_in: u64,
    /// Answered.
    pub frames_answered: u64,
    /// Dropped, and counted so.
    pub frames_dropped: u64,
    /// Taken by a model that gave no answer.
    pub frames_failed: u64,
    /// Waiting now.
    pub frames_waiting: u64,
}

impl AgentStatus {
    /// The model that answers, if one does.
    pub fn answering(&self) -> Option<BundleDigest> {
        let model = self.model.as_ref().map(|model| model.digest);
        model.filter(|_| self.state == "answering")
    }

    /// The frames, of a running agent.
    pub fn frames(&self) -> Option<Frames> {
        self.running.as_ref().map(|running| running.frames)
    }

    /// Whether the broker answers.
    pub fn connected(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.link.connected)
    }

    /// Whether everything that a running agent signed has its receipt. One that only starts may let its
    /// files be read, and in the next moment not.
    pub fn drained(&self) -> bool {
        let empty = self.outbox.is_some_and(|outbox| outbox.samples + outbox.gaps == 0);
        self.running.is_some() && empty
    }
}

impl Frames {
    /// Fails when a frame came to nothing and nobody counted it. One may be under way.
    ///
    /// # Errors
    /// When more than one frame is missing.
    pub fn are_accounted_for(&self) -> Result<()> {
        let told =
            self.frames_answered + self.frames_dropped + self.frames_failed + self.frames_waiting;
        ensure!(
            told <= self.frames_in && self.frames_in - told <= 1,
            "of {} frames {told} are accounted for: {self:?}",
            self.frames_in
        );
        Ok(())
    }
}
