//! What is read of a running agent: for status, telemetry and the last words. Reads only.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetloop_observe::otlp::Seen;
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::telemetry::Telemetry;
use tokio::sync::watch;

use super::Stopped;
use crate::clock::Clock;
use crate::drift::DriftStatus;
use crate::durable;
use crate::frames::FrameQueue;
use crate::health;
use crate::infer::Inference;
use crate::link::LinkStatus;
use crate::outbox::Outbox;
use crate::reload::Standing;
use crate::source::SourceCounts;
use crate::status::{FrameStatus, ModelStatus, RunningStatus, State, Status, TryingStatus};
use crate::telemetry::{Meter, Others, peak_rss_bytes, rss_bytes};

/// What status and telemetry are read from.
pub(super) struct Observed {
    pub clock: Clock,
    pub data_dir: PathBuf,
    pub device: DeviceId,
    pub config: watch::Receiver<Standing>,
    pub queue: Arc<FrameQueue>,
    pub source_counts: Arc<SourceCounts>,
    pub meter: Arc<Meter>,
    pub outbox: Outbox,
    pub inference: Inference,
    pub results_dropped: Arc<AtomicU64>,
    pub link: watch::Receiver<LinkStatus>,
    pub drift: watch::Receiver<Option<DriftStatus>>,
    pub otlp: Option<Seen>,
}

impl Observed {
    /// The report of the window that ends now.
    pub(super) fn report(&self) -> Telemetry {
        let (frames, outbox) = (self.queue.counts(), self.outbox.stats());
        let others = Others {
            frames_in: frames.frames_in,
            frames_dropped: frames.frames_dropped,
            samples_selected: outbox.signed_since_start,
            samples_evicted: outbox.evicted_since_start,
            samples_receipted: outbox.samples_receipted_total,
            outbox_rows: outbox.samples + outbox.gaps,
            outbox_bytes: outbox.bytes,
            dead_letters: outbox.dead_letters,
        };
        self.meter.report(self.clock.monotonic(), self.clock.now().0, others)
    }

    fn frames(&self) -> FrameStatus {
        // The answered first: a frame that moves on in between must not seem answered twice.
        let counters = self.meter.counters();
        let counts = self.queue.counts();
        FrameStatus {
            frames_in: counts.frames_in,
            frames_answered: counters.frames_answered,
            frames_dropped: counts.frames_dropped,
            frames_failed: counters.frames_failed,
            frames_waiting: counts.waiting as u64,
            frames_late: self.source_counts.late(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let model = self.inference.model().map(|model| ModelStatus {
            digest: model.digest,
            name: Some(format!("{} {}", model.name, model.version)),
        });
        let answering = self.inference.running().borrow().is_some();
        // Each is borrowed alone and not for long: a thread that has one borrowed and borrows it again
        // waits for a writer that waits for it.
        let config = self.config.borrow().clone();
        let link = self.link.borrow().clone();
        let drift = self.drift.borrow().clone();
        let period = Duration::from_millis(config.period_ms);
        Status {
            state: if answering { State::Answering } else { State::NoModelYet },
            agent_version: env!("CARGO_PKG_VERSION").into(),
            data_dir: self.data_dir.clone(),
            device: Some(self.device.clone()),
            model,
            outbox: Some(self.outbox.stats()),
            running: Some(RunningStatus {
                uptime_s: self.clock.monotonic().as_secs(),
                now: self.clock.now(),
                clock: self.clock.state(),
                config,
                frames: self.frames(),
                counters: self.meter.counters(),
                results_dropped: self.results_dropped.load(Ordering::Relaxed),
                link,
                drift,
                rss_bytes: rss_bytes(),
                peak_rss_bytes: peak_rss_bytes(),
                disk_free_bytes: durable::free_bytes(&self.data_dir),
                silent_s: self.silent().as_secs(),
                silence_limit_s: health::silence_limit(period).as_secs(),
                trying: self.trying(),
                overdue_s: self.inference.overdue().map(|since| since.as_secs()),
                threads_ended: self.threads_ended(),
                otlp: self.otlp.as_ref().map(Seen::status),
            }),
            problems: Vec::new(),
        }
    }

    /// The state in a line.
    pub(super) fn in_words(&self) -> String {
        let hub = if self.link.borrow().connected { "connected" } else { "not connected" };
        match self.inference.model() {
            Some(model) => format!("{} {} answers; hub {hub}", model.name, model.version),
            None => format!("no model yet; hub {hub}"),
        }
    }

    fn silent(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.meter.answered_at())
    }

    fn trying(&self) -> Option<TryingStatus> {
        let trying = self.inference.trying()?;
        let for_s = self.clock.monotonic().saturating_sub(trying.since).as_secs();
        Some(TryingStatus { bundle: trying.bundle, for_s, at_most_s: trying.at_most.as_secs() })
    }

    fn threads_ended(&self) -> Vec<String> {
        [("inference", self.inference.has_ended()), ("outbox", self.outbox.has_ended())]
            .into_iter()
            .filter(|(_, ended)| *ended)
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    pub(super) fn stopped(&self) -> Stopped {
        let (frames, outbox) = (self.frames(), self.outbox.stats());
        Stopped {
            event: "stopped".into(),
            frames_in: frames.frames_in,
            frames_answered: frames.frames_answered,
            frames_dropped: frames.frames_dropped,
            frames_failed: frames.frames_failed,
            samples_signed_total: outbox.samples_signed_total,
            samples_receipted_total: outbox.samples_receipted_total,
            samples_waiting: outbox.samples,
            peak_rss_bytes: peak_rss_bytes(),
        }
    }
}
