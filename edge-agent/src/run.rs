//! `edge-agent run`: wires everything, waits for the signal, drains, ends.
//!
//! Start: identity, runtime, outbox, inference, source, HTTP, link; the link puts the installed
//! model to work. End, on SIGINT or SIGTERM, all of it within [`DRAIN`]: the source stops; the model
//! answers what waits; the sampler and the outbox write what was chosen; a last report is sent; the
//! link sends what it can; the clock's floor is kept. What could not be sent stays in the outbox.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle as Thread;
use std::time::Duration;

use fleetloop_models::session::{Runtime, SessionError, Threads};
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::keys::{KeyError, random_bytes};
use fleetloop_protocol::telemetry::Telemetry;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::{Clock, ClockError};
use crate::config::Config;
use crate::decide::Decide;
use crate::frames::FrameQueue;
use crate::http::{self, HttpError, Shown};
use crate::identity::{Identity, IdentityError};
use crate::infer::{self, Inference};
use crate::link::{self, LinkParts, LinkStatus};
use crate::outbox::{Outbox, OutboxError};
use crate::results::Results;
use crate::shutdown::{self, Shutdown};
use crate::source::{self, SourceCounts, SourceError};
use crate::status::{FrameStatus, ModelStatus, RunningStatus, State, Status};
use crate::telemetry::{Meter, Others, peak_rss_bytes};

/// How long the end may take before what is left is given up.
pub const DRAIN: Duration = Duration::from_secs(10);

/// How long a swap waits for a frame, at least; a slow source gets three of its periods.
const CONFIRM_WITHIN: Duration = Duration::from_secs(60);

/// How often the clock's floor is looked at.
const FLOOR_EVERY: Duration = Duration::from_secs(60);

/// Telemetry reports that may wait for the link: it is offline then, and older ones say less.
const TELEMETRY_WAITING: usize = 4;

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It is not enrolled, or its identity is broken.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no runtime.
    #[error(transparent)]
    Runtime(#[from] SessionError),
    /// The clock's floor cannot be read.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The outbox cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The source gives nothing.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The port is taken.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// No random bytes for the seed.
    #[error("cannot seed the selection")]
    Seed(#[from] KeyError),
    /// The system has no thread or signal handler to give.
    #[error("cannot start the {0} thread")]
    Thread(&'static str, #[source] std::io::Error),
}

/// The agent's last words: one JSON line on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Always `stopped`.
    pub event: String,
    /// Frames that arrived.
    pub frames_in: u64,
    /// Frames that were answered.
    pub frames_answered: u64,
    /// Frames that were dropped.
    pub frames_dropped: u64,
    /// Frames that a model took and did not answer.
    pub frames_failed: u64,
    /// Samples signed and stored in the life of this outbox.
    pub samples_signed_total: u64,
    /// Samples with a receipt in the life of this outbox.
    pub samples_receipted_total: u64,
    /// Samples that wait in the outbox.
    pub samples_waiting: u64,
    /// The most memory the process ever held resident, in bytes.
    pub peak_rss_bytes: u64,
}

/// Everything that runs.
struct Agent {
    parts: Arc<Observed>,
    outbox: Outbox,
    inference: Inference,
    queue: Arc<FrameQueue>,
    threads: Vec<Thread<()>>,
    link: JoinHandle<()>,
    http: JoinHandle<std::io::Result<()>>,
    telemetry: mpsc::Sender<Telemetry>,
    shutdown: watch::Sender<Shutdown>,
}

/// What status and telemetry are read from.
struct Observed {
    clock: Clock,
    data_dir: PathBuf,
    device: DeviceId,
    source: String,
    queue: Arc<FrameQueue>,
    source_counts: Arc<SourceCounts>,
    meter: Arc<Meter>,
    outbox: Outbox,
    inference: Inference,
    results_dropped: Arc<AtomicU64>,
    link: watch::Receiver<LinkStatus>,
}

/// Runs the agent until a signal ends it.
///
/// # Errors
/// [`RunError`] when it cannot start; once it runs, it runs.
pub async fn run(config: &Config) -> Result<Stopped, RunError> {
    let mut interrupt = on_signal(SignalKind::interrupt())?;
    let mut terminate = on_signal(SignalKind::terminate())?;
    let agent = Agent::start(config).await?;
    let mut reports = tokio::time::interval(Duration::from_secs(config.telemetry.every_s.into()));
    let mut floor = tokio::time::interval(FLOOR_EVERY);
    reports.tick().await;
    loop {
        // Cancel-safe: all four keep their state when another wins.
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = reports.tick() => agent.report(),
            _ = floor.tick() => agent.keep_floor(),
        }
    }
    tracing::info!("stopping: what is there is finished first");
    Ok(agent.stop().await)
}

fn on_signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal, RunError> {
    signal(kind).map_err(|source| RunError::Thread("signal", source))
}

impl Agent {
    async fn start(config: &Config) -> Result<Self, RunError> {
        let identity = Arc::new(Identity::load(&config.data_dir)?);
        let runtime = Runtime::load(config.inference.library.as_deref())?;
        let listener = http::bind(config.http.listen).await?;
        let source = source::open(&config.source)?;
        let described = source.describe();
        let clock = Clock::system(config.data_dir.join("clock.json"))?;
        let device = identity.device().clone();
        let outbox = Outbox::open(
            &config.data_dir,
            &config.outbox,
            device.clone(),
            identity.signing_key(),
            clock.clone(),
        )?;
        let queue = Arc::new(FrameQueue::new(config.inference.queue_frames));
        let meter = Arc::new(Meter::new(clock.monotonic()));
        let (results, results_mqtt) = Results::new(config.results.mqtt_per_second);
        let (latest, results_dropped) = (results.latest(), results.dropped());
        let seed = match config.selection.seed {
            Some(seed) => seed,
            None => u64::from_le_bytes(random_bytes()?),
        };
        let (sink, sampler) = Decide::new(
            clock.clone(),
            meter.clone(),
            results,
            &config.selection,
            config.digest,
            seed,
        );
        let period = Duration::from_secs_f64(3.0 / config.source.rate_hz());
        let inference = Inference::start(infer::Parts {
            runtime,
            threads: Threads(usize::from(config.inference.threads)),
            queue: queue.clone(),
            clock: clock.clone(),
            sink: Box::new(sink),
            confirm_within: CONFIRM_WITHIN.max(period),
        })
        .map_err(|source| RunError::Thread("inference", source))?;
        let source_counts = Arc::new(SourceCounts::default());
        let threads = vec![
            source::spawn(
                source,
                config.source.rate_hz(),
                queue.clone(),
                clock.clone(),
                source_counts.clone(),
            )
            .map_err(|source| RunError::Thread("source", source))?,
            sampler.spawn(outbox.clone()).map_err(|source| RunError::Thread("sampler", source))?,
        ];
        let (shutdown, signal) = shutdown::channel();
        let (telemetry, telemetry_link) = mpsc::channel(TELEMETRY_WAITING);
        let (link_status, link) = link::start(LinkParts {
            data_dir: config.data_dir.clone(),
            identity,
            clock: clock.clone(),
            outbox: outbox.clone(),
            inference: inference.clone(),
            results: results_mqtt,
            telemetry: telemetry_link,
            shutdown: signal.clone(),
        });
        let parts = Arc::new(Observed {
            clock,
            data_dir: config.data_dir.clone(),
            device,
            source: described,
            queue: queue.clone(),
            source_counts,
            meter,
            outbox: outbox.clone(),
            inference: inference.clone(),
            results_dropped,
            link: link_status,
        });
        let observed = parts.clone();
        let shown = Shown { status: Arc::new(move || observed.status()), latest };
        let http = tokio::spawn(http::serve(listener, shown, signal));
        tracing::info!(device = %parts.device, http = %config.http.listen, "the agent runs");
        Ok(Self { parts, outbox, inference, queue, threads, link, http, telemetry, shutdown })
    }

    /// Hands a report to the link; when it is too far behind, the report is dropped: the counters
    /// in the next one say the same.
    fn report(&self) {
        if self.telemetry.try_send(self.parts.report()).is_err() {
            tracing::debug!("the link is behind; a telemetry report was dropped");
        }
    }

    fn keep_floor(&self) {
        let clock = self.parts.clock.clone();
        // Not waited for: an fsync may take long, and nothing depends on it.
        drop(tokio::task::spawn_blocking(move || persist(&clock)));
    }

    async fn stop(self) -> Stopped {
        let Self { parts, outbox, inference, queue, threads, link, http, telemetry, shutdown } =
            self;
        let aborts = [link.abort_handle(), http.abort_handle()];
        let drained = tokio::time::timeout(DRAIN, async {
            queue.close();
            let work = tokio::task::spawn_blocking(move || {
                inference.join();
                threads.into_iter().for_each(|thread| drop(thread.join()));
            });
            drop(work.await);
            drop(outbox.flush().await);
            // Full means offline: the report would not be sent either.
            drop(telemetry.try_send(parts.report()));
            drop(telemetry);
            shutdown.send_replace(Shutdown::Drain);
            drop(link.await);
        });
        if drained.await.is_err() {
            tracing::warn!(limit_s = DRAIN.as_secs(), "not everything was finished in time");
        }
        shutdown.send_replace(Shutdown::Now);
        // Two seconds for an open connection of a slow reader.
        drop(tokio::time::timeout(Duration::from_secs(2), http).await);
        aborts.iter().for_each(tokio::task::AbortHandle::abort);
        let last = parts.clone();
        let closed = tokio::task::spawn_blocking(move || {
            last.outbox.close();
            persist(&last.clock);
        });
        drop(tokio::time::timeout(DRAIN, closed).await);
        parts.stopped()
    }
}

fn persist(clock: &Clock) {
    if let Err(error) = clock.persist() {
        tracing::warn!(%error, "the clock's floor was not kept");
    }
}

impl Observed {
    fn report(&self) -> Telemetry {
        let (frames, outbox) = (self.queue.counts(), self.outbox.stats());
        let others = Others {
            frames_in: frames.frames_in,
            frames_dropped: frames.frames_dropped,
            samples_selected: outbox.signed_since_start,
            samples_evicted: outbox.evicted_since_start,
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

    fn status(&self) -> Status {
        let model = self.inference.model().map(|model| ModelStatus {
            digest: model.digest,
            name: Some(format!("{} {}", model.name, model.version)),
        });
        let answering = self.inference.running().borrow().is_some();
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
                source: self.source.clone(),
                frames: self.frames(),
                counters: self.meter.counters(),
                results_dropped: self.results_dropped.load(Ordering::Relaxed),
                link: self.link.borrow().clone(),
                peak_rss_bytes: peak_rss_bytes(),
            }),
            problems: Vec::new(),
        }
    }

    fn stopped(&self) -> Stopped {
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
