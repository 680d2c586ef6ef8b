//! What a device counts, so that the hub sees a fleet without seeing a frame.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::BundleDigest;
use crate::limits::{SIGNED_BODY_BYTES, TELEMETRY_CLASSES};
use crate::signed::{Purpose, Signable};
use crate::time::UnixMillis;
use crate::v1;
use crate::wire::{Invalid, Wire};

/// How many equal bins the confidence histogram has, from 0 to 1.
pub const CONFIDENCE_BINS: usize = 20;

/// Counters since the agent started, and distributions over the last window.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Telemetry {
    /// The model that answered last.
    pub model: Option<BundleDigest>,
    /// The end of the window, by the device's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// The window's length in seconds.
    pub window_s: u32,
    /// Frames that arrived, since start.
    pub frames_in: u64,
    /// Frames that were answered, since start.
    pub frames_answered: u64,
    /// Frames that were dropped because the queue was full, since start.
    pub frames_dropped: u64,
    /// Samples chosen, signed and written to the outbox, since start.
    pub samples_selected: u64,
    /// Samples evicted from the outbox, since start.
    pub samples_evicted: u64,
    /// Rows waiting in the outbox now.
    pub outbox_rows: u64,
    /// Bytes waiting in the outbox now.
    pub outbox_bytes: u64,
    /// Samples in the dead-letter table now.
    pub dead_letters: u64,
    /// The most memory the process ever held resident, in bytes.
    pub peak_rss_bytes: u64,
    /// Median time from a frame's arrival to its answer over the window, in microseconds.
    pub latency_us_p50: u32,
    /// 99th percentile of the same.
    pub latency_us_p99: u32,
    /// Answers by most probable class over the window; empty when there are too many classes.
    pub class_counts: Vec<u64>,
    /// Answers by confidence over the window, [`CONFIDENCE_BINS`] equal bins from 0 to 1.
    pub confidence: Vec<u64>,
}

impl Signable for Telemetry {
    const PURPOSE: Purpose = Purpose::Telemetry;
}

impl Wire for Telemetry {
    type Frozen = v1::Telemetry;
    const NAME: &'static str = "telemetry";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn freeze(&self, _reads: u8) -> Option<v1::Telemetry> {
        Some(v1::Telemetry {
            model: self.model.map(|model| *model.0.as_bytes()),
            at_ms: self.at_ms,
            window_s: self.window_s,
            frames_in: self.frames_in,
            frames_answered: self.frames_answered,
            frames_dropped: self.frames_dropped,
            samples_selected: self.samples_selected,
            samples_evicted: self.samples_evicted,
            outbox_rows: self.outbox_rows,
            outbox_bytes: self.outbox_bytes,
            dead_letters: self.dead_letters,
            peak_rss_bytes: self.peak_rss_bytes,
            latency_us_p50: self.latency_us_p50,
            latency_us_p99: self.latency_us_p99,
            class_counts: self.class_counts.clone(),
            confidence: self.confidence.clone(),
        })
    }

    fn thaw(wire: v1::Telemetry) -> Result<Self, Invalid> {
        if wire.class_counts.len() > TELEMETRY_CLASSES {
            return Err(Invalid(format!("{} classes", wire.class_counts.len())));
        }
        if ![0, CONFIDENCE_BINS].contains(&wire.confidence.len()) {
            return Err(Invalid(format!("{} confidence bins", wire.confidence.len())));
        }
        Ok(Self {
            model: wire.model.map(|model| BundleDigest(Digest::from_bytes(model))),
            at_ms: wire.at_ms,
            window_s: wire.window_s,
            frames_in: wire.frames_in,
            frames_answered: wire.frames_answered,
            frames_dropped: wire.frames_dropped,
            samples_selected: wire.samples_selected,
            samples_evicted: wire.samples_evicted,
            outbox_rows: wire.outbox_rows,
            outbox_bytes: wire.outbox_bytes,
            dead_letters: wire.dead_letters,
            peak_rss_bytes: wire.peak_rss_bytes,
            latency_us_p50: wire.latency_us_p50,
            latency_us_p99: wire.latency_us_p99,
            class_counts: wire.class_counts,
            confidence: wire.confidence,
        })
    }
}

impl Telemetry {
    /// The end of the window.
    pub fn at(&self) -> UnixMillis {
        UnixMillis(self.at_ms)
    }
}
