//! What a device counts, so that the hub sees a fleet without seeing a frame.
//!
//! A window is told from every other by its signed body: the counters since start and the window's
//! end are part of it, so the same bytes are the same window delivered again.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::BundleDigest;
use crate::limits::{SIGNED_BODY_BYTES, TELEMETRY_CLASSES};
use crate::signed::{Purpose, Signable};
use crate::sketch::{Histogram, Sketch};
use crate::time::UnixMillis;
use crate::wire::{Invalid, Two, Wire};
use crate::{v1, v2};

/// Counters since the agent started, and distributions over the last window.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Telemetry {
    /// The model that answered last, and that the sketch is about.
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
    /// The frames that the model answered in the window. Version 1 knows no input.
    pub sketch: Sketch,
}

impl Signable for Telemetry {
    const PURPOSE: Purpose = Purpose::Telemetry;
}

impl Wire for Telemetry {
    type Frozen = Two<v1::Telemetry, v2::Telemetry>;
    const NAME: &'static str = "telemetry";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn freeze(&self, reads: u8) -> Option<Self::Frozen> {
        let counted = v1::Telemetry {
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
            class_counts: self.sketch.classes.clone(),
            confidence: list(self.sketch.confidence),
        };
        let (brightness, contrast) = (self.sketch.brightness, self.sketch.contrast);
        let has_input = brightness.total() > 0 || contrast.total() > 0;
        Some(if reads >= 2 && has_input {
            let (brightness, contrast) = (list(brightness), list(contrast));
            Two::V2(v2::Telemetry { counted, brightness, contrast })
        } else {
            Two::V1(counted)
        })
    }

    fn thaw(frozen: Self::Frozen) -> Result<Self, Invalid> {
        let (wire, brightness, contrast) = match frozen {
            Two::V1(v1) => (v1, Vec::new(), Vec::new()),
            Two::V2(v2) => (v2.counted, v2.brightness, v2.contrast),
        };
        if wire.class_counts.len() > TELEMETRY_CLASSES {
            return Err(Invalid(format!("{} classes", wire.class_counts.len())));
        }
        let sketch = Sketch {
            classes: wire.class_counts,
            confidence: histogram("confidence", wire.confidence)?,
            brightness: histogram("brightness", brightness)?,
            contrast: histogram("contrast", contrast)?,
        };
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
            sketch,
        })
    }
}

/// The counts of a histogram; of an empty one, none.
fn list<const N: usize>(histogram: Histogram<N>) -> Vec<u64> {
    if histogram.total() == 0 { Vec::new() } else { histogram.into() }
}

/// The reverse of [`list`]. Zeros are read too: agents of version 1 write them.
fn histogram<const N: usize>(name: &str, counts: Vec<u64>) -> Result<Histogram<N>, Invalid> {
    if counts.is_empty() {
        return Ok(Histogram::default());
    }
    counts.try_into().map_err(|error| Invalid(format!("{name} of {error}")))
}

impl Telemetry {
    /// The end of the window.
    pub fn at(&self) -> UnixMillis {
        UnixMillis(self.at_ms)
    }
}
