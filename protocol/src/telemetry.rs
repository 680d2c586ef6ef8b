//! What a device counts, so that the hub sees a fleet without seeing a frame.
//!
//! A window is told from every other by its signed body: the counters since start and the window's
//! end are part of it, so the same bytes are the same window delivered again.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::form;
use crate::ids::BundleDigest;
use crate::limits::{SIGNED_BODY_BYTES, TELEMETRY_CLASSES};
use crate::signed::{Purpose, Signable};
use crate::sketch::Sketch;
use crate::time::UnixMillis;
use crate::wire::{Invalid, Wire};

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
    /// Samples the hub gave a receipt for, in the life of the outbox.
    pub samples_receipted: u64,
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
    /// The frames that the model answered in the window.
    pub sketch: Sketch,
}

impl Signable for Telemetry {
    const PURPOSE: Purpose = Purpose::Telemetry;
}

impl Wire for Telemetry {
    type Form = form::Telemetry;
    const NAME: &'static str = "telemetry";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn to_form(&self) -> form::Telemetry {
        form::Telemetry {
            model: self.model.map(|model| *model.0.as_bytes()),
            at_ms: self.at_ms,
            window_s: self.window_s,
            frames_in: self.frames_in,
            frames_answered: self.frames_answered,
            frames_dropped: self.frames_dropped,
            samples_selected: self.samples_selected,
            samples_evicted: self.samples_evicted,
            samples_receipted: self.samples_receipted,
            outbox_rows: self.outbox_rows,
            outbox_bytes: self.outbox_bytes,
            dead_letters: self.dead_letters,
            peak_rss_bytes: self.peak_rss_bytes,
            latency_us_p50: self.latency_us_p50,
            latency_us_p99: self.latency_us_p99,
            sketch: form::Sketch {
                classes: self.sketch.classes.clone(),
                confidence: *self.sketch.confidence.counts(),
                brightness: *self.sketch.brightness.counts(),
                contrast: *self.sketch.contrast.counts(),
            },
        }
    }

    fn from_form(form: form::Telemetry) -> Result<Self, Invalid> {
        let form::Sketch { classes, confidence, brightness, contrast } = form.sketch;
        if classes.len() > TELEMETRY_CLASSES {
            return Err(Invalid(format!("{} classes", classes.len())));
        }
        Ok(Self {
            model: form.model.map(|model| BundleDigest(Digest::from_bytes(model))),
            at_ms: form.at_ms,
            window_s: form.window_s,
            frames_in: form.frames_in,
            frames_answered: form.frames_answered,
            frames_dropped: form.frames_dropped,
            samples_selected: form.samples_selected,
            samples_evicted: form.samples_evicted,
            samples_receipted: form.samples_receipted,
            outbox_rows: form.outbox_rows,
            outbox_bytes: form.outbox_bytes,
            dead_letters: form.dead_letters,
            peak_rss_bytes: form.peak_rss_bytes,
            latency_us_p50: form.latency_us_p50,
            latency_us_p99: form.latency_us_p99,
            sketch: Sketch {
                classes,
                confidence: confidence.into(),
                brightness: brightness.into(),
                contrast: contrast.into(),
            },
        })
    }
}

impl Telemetry {
    /// The end of the window.
    pub fn at(&self) -> UnixMillis {
        UnixMillis(self.at_ms)
    }
}
