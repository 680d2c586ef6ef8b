//! Everything that runs: put together in the order in which it depends on one another, and taken
//! apart in the reverse.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle as Thread;
use std::time::Duration;

use fleetloop_models::session::{Runtime, Threads};
use fleetloop_observe::otlp::{Export, OtlpError, Seen, Speaker};
use fleetloop_observe::private;
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::keys::random_bytes;
use fleetloop_protocol::telemetry::Telemetry;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, Interval, interval_at};
use tracing::Instrument as _;

use super::observed::Observed;
use super::{DRAIN, RunError, Stopped};
use crate::clock::Clock;
use crate::config::Config;
use crate::decide::{Decide, Rules};
use crate::drift;
use crate::frames::FrameQueue;
use crate::http::{self, Shown};
use crate::identity::Identity;
use crate::infer::{self, Guards, Inference, Proving};
use crate::link::{self, LinkParts};
use crate::outbox::Outbox;
use crate::proof::{Limits, Prover};
use crate::reload::{self, Owners, Reload};
use crate::results::{Latest, Results};
use crate::shutdown::{self, Shutdown, reached};
use crate::source::{self, Schedule, Source, SourceCounts};
use crate::supervise::{self, Member, Pulse, ToServiceManager, Watch};
use crate::telemetry::Meter;
use crate::update::trial;

/// Telemetry reports that may wait for the link: it is offline then, and older ones say less.
const TELEMETRY_WAITING: usize = 4;

/// How often the clock's floor is looked at.
const FLOOR_EVERY: Duration = Duration::from_secs(60);

/// What an agent is started from.
pub(super) struct Inputs<'e> {
    /// Where the configuration was read from; it is followed from here on.
    pub path: PathBuf,
    pub config: Config,
    pub manager: Member<ToServiceManager>,
    /// The log's OTLP end, if the process has one.
    pub spans: Option<&'e mut Export>,
}

/// Everything that runs.
pub(super) struct Agent {
    parts: Arc<Observed>,
    outbox: Outbox,
    inference: Inference,
    queue: Arc<FrameQueue>,
    threads: Vec<Thread<()>>,
    link: JoinHandle<()>,
    http: JoinHandle<()>,
    telemetry: mpsc::Sender<Telemetry>,
    drift: drift::Driver,
    telemetry_every: watch::Receiver<Duration>,
    reload: Reload,
    alive: Watch,
    shutdown: watch::Sender<Shutdown>,
}

impl Agent {
    pub(super) async fn start(inputs: Inputs<'_>) -> Result<Self, RunError> {
        let Inputs { path, config, manager, spans } = inputs;
        private::secure(&config.data_dir)?;
        let identity = Arc::new(Identity::load(&config.data_dir)?);
        let runtime = Runtime::load(config.inference.library.as_deref())?;
        let listener = http::bind(config.http.listen).await?;
        let source = source::open(&config.source)?;
        let described = source.describe();
        let clock = Clock::system(config.data_dir.join("clock.json"))?;
        // The hub issued the certificate then: a floor, for a device that never asked the time.
        clock.is_past(identity.tls().borrow().life().not_before);
        let device = identity.device().clone();
        let outbox = Outbox::open(
            &config.data_dir,
            &config.outbox,
            device.clone(),
            identity.signing_key(),
            clock.clone(),
        )?;
        let road = Road::start(&config, runtime, source, &clock, &outbox)?;
        let telemetry_every = watch::Sender::new(config.telemetry.every());
        let owners = Owners {
            rules: road.rules,
            outbox: outbox.clone(),
            telemetry_every: telemetry_every.clone(),
            queue: road.queue.clone(),
            schedule: road.schedule,
            inference: road.inference.clone(),
        };
        let announce = Box::new(manager.clone());
        let (reload, standing, follower) =
            reload::spawn(path, config.clone(), described, owners, announce)
                .map_err(|source| RunError::Thread("reload", source))?;
        let (shutdown, signal) = shutdown::channel();
        let link_pulse = Pulse::default();
        let otlp = export(&config, spans, &device, &clock)?;
        let (telemetry, telemetry_link) = mpsc::channel(TELEMETRY_WAITING);
        let (link_status, link) = link::start(LinkParts {
            data_dir: config.data_dir.clone(),
            identity,
            clock: clock.clone(),
            outbox: outbox.clone(),
            inference: road.inference.clone(),
            results: road.results_mqtt,
            telemetry: telemetry_link,
            pulse: link_pulse.clone(),
            shutdown: signal.clone(),
        });
        let (drift, drift_shown) = drift::Driver::open(&config.data_dir);
        let parts = Arc::new(Observed {
            clock,
            data_dir: config.data_dir.clone(),
            device,
            config: standing,
            queue: road.queue.clone(),
            source_counts: road.source_counts,
            meter: road.meter,
            outbox: outbox.clone(),
            inference: road.inference.clone(),
            results_dropped: road.results_dropped,
            link: link_status,
            drift: drift_shown,
            otlp,
        });
        let said = parts.clone();
        let (alive, watcher) = supervise::spawn(
            supervise::Parts {
                clock: parts.clock.clone(),
                inference: road.pulse,
                link: link_pulse,
                outbox: outbox.clone(),
                status: Box::new(move || said.in_words()),
                watchdog: supervise::watchdog(),
            },
            manager,
        )
        .map_err(|source| RunError::Thread("supervision", source))?;
        let (observed, measured) = (parts.clone(), parts.clone());
        let shown = Shown {
            status: Arc::new(move || observed.status()),
            latencies: Arc::new(move || measured.meter.latencies()),
            latest: road.latest.clone(),
        };
        let http = tokio::spawn(http::serve(listener, shown, signal).in_current_span());
        tracing::info!(device = %parts.device, http = %config.http.listen, "the agent runs");
        let Road { queue, inference, mut threads, .. } = road;
        threads.extend([follower, watcher]);
        Ok(Self {
            parts,
            outbox,
            inference,
            queue,
            threads,
            link,
            http,
            telemetry,
            drift,
            telemetry_every: telemetry_every.subscribe(),
            reload,
            alive,
            shutdown,
        })
    }

    /// Reports, keeps the clock's floor and reads the configuration when asked, until the signal says
    /// [`Shutdown::Drain`]; then ends in order.
    pub(super) async fn work(
        mut self,
        mut signal: watch::Receiver<Shutdown>,
        mut reload: watch::Receiver<()>,
    ) -> Stopped {
        let mut every = self.telemetry_every.clone();
        let mut reports = reports_every(*every.borrow_and_update());
        let mut floor = tokio::time::interval(FLOOR_EVERY);
        loop {
            // Cancel-safe: all of them keep their state when another wins.
            tokio::select! {
                () = reached(&mut signal, Shutdown::Drain) => break,
                Ok(()) = reload.changed() => self.reload.now(),
                Ok(()) = every.changed() => reports = reports_every(*every.borrow_and_update()),
                _ = reports.tick() => self.report(),
                _ = floor.tick() => self.keep_floor(),
            }
        }
        self.stop().await
    }

    /// Looks at the window for drift and hands its report to the link; when that is too far behind,
    /// the report is dropped: the counters in the next one say the same, and the hub's sketch lacks a
    /// window.
    fn report(&mut self) {
        let report = self.parts.report();
        self.drift.window(self.inference.model().as_deref(), &report);
        if self.telemetry.try_send(report).is_err() {
            tracing::debug!("the link is behind; a telemetry report was dropped");
        }
    }

    fn keep_floor(&self) {
        let clock = self.parts.clock.clone();
        // Not waited for: an fsync may take long, and nothing depends on it.
        drop(tokio::task::spawn_blocking(move || persist(&clock)));
    }

    pub(super) async fn stop(self) -> Stopped {
        let Self {
            parts, outbox, inference, queue, threads, link, http, telemetry, shutdown, ..
        } = self;
        // Their threads end with them.
        drop((self.reload, self.alive));
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
        aborts.iter().for_each(AbortHandle::abort);
        let last = parts.clone();
        let closed = tokio::task::spawn_blocking(move || {
            last.outbox.close();
            persist(&last.clock);
        });
        drop(tokio::time::timeout(DRAIN, closed).await);
        parts.stopped()
    }
}

/// Has the device's spans sent, if its configuration names a collector.
fn export(
    config: &Config,
    spans: Option<&mut Export>,
    device: &DeviceId,
    clock: &Clock,
) -> Result<Option<Seen>, OtlpError> {
    let Some((spans, collector)) = spans.zip(config.telemetry.otlp.as_deref()) else {
        return Ok(None);
    };
    let speaker = Speaker {
        program: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        instance: device.to_string(),
        device: Some(device.clone()),
    };
    let clock = clock.clone();
    spans.add(collector, speaker, Box::new(move || clock.now())).map(Some)
}

/// Ticks, the first time in `period`.
fn reports_every(period: Duration) -> Interval {
    interval_at(Instant::now() + period, period)
}

fn persist(clock: &Clock) {
    if let Err(error) = clock.persist() {
        tracing::warn!(%error, "the clock's floor was not kept");
    }
}

/// The road of a frame: source, queue, model, decision, sampler.
struct Road {
    rules: watch::Sender<Arc<Rules>>,
    schedule: Schedule,
    queue: Arc<FrameQueue>,
    inference: Inference,
    meter: Arc<Meter>,
    source_counts: Arc<SourceCounts>,
    latest: Arc<Latest>,
    results_mqtt: mpsc::Receiver<Vec<u8>>,
    results_dropped: Arc<AtomicU64>,
    pulse: Pulse,
    threads: Vec<Thread<()>>,
}

impl Road {
    fn start(
        config: &Config,
        runtime: Runtime,
        source: Box<dyn Source>,
        clock: &Clock,
        outbox: &Outbox,
    ) -> Result<Self, RunError> {
        let queue = Arc::new(FrameQueue::new(config.queue_frames()));
        let meter = Arc::new(Meter::new(clock.monotonic()));
        let (results, results_mqtt) = Results::new(config.results.mqtt_per_second);
        let (latest, results_dropped) = (results.latest(), results.dropped());
        let seed = match config.selection.seed {
            Some(seed) => seed,
            None => u64::from_le_bytes(random_bytes()?),
        };
        let pulse = Pulse::default();
        let (rules, latest_rules) = watch::channel(Arc::new(Rules::of(config)));
        let (sink, sampler) =
            Decide::new(clock.clone(), meter.clone(), results, latest_rules, seed);
        let inference = Inference::start(infer::Parts {
            runtime,
            threads: Threads(usize::from(config.inference.threads)),
            queue: queue.clone(),
            clock: clock.clone(),
            pulse: pulse.clone(),
            sink: Box::new(sink),
            confirm_within: infer::confirm_within(config.source.rate_hz()),
            guards: Guards {
                proving: Proving::InChild(Prover::new(&config.data_dir, Limits::of(config))),
                run_limit: config.inference.run_limit(),
                hung: trial::end_process_of(&config.data_dir),
            },
        })
        .map_err(|source| RunError::Thread("inference", source))?;
        let source_counts = Arc::new(SourceCounts::default());
        let (schedule, driver) = source::spawn(
            source,
            config.source.rate_hz(),
            queue.clone(),
            clock.clone(),
            source_counts.clone(),
        )
        .map_err(|source| RunError::Thread("source", source))?;
        let sampler =
            sampler.spawn(outbox.clone()).map_err(|source| RunError::Thread("sampler", source))?;
        Ok(Self {
            rules,
            schedule,
            queue,
            inference,
            meter,
            source_counts,
            latest,
            results_mqtt,
            results_dropped,
            pulse,
            threads: vec![driver, sampler],
        })
    }
}
