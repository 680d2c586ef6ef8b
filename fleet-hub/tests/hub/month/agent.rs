//! The agent's parts, put together as the program does, over a clock that is set by hand and frames
//! that are pushed one by one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use edge_agent::clock::Clock;
use edge_agent::config::{OutboxConfig, SelectionConfig};
use edge_agent::decide::{Decide, Rules};
use edge_agent::durable;
use edge_agent::frames::{Arrived, FrameQueue};
use edge_agent::identity::Identity;
use edge_agent::infer::{Guards, Inference, Parts};
use edge_agent::link::{self, LinkParts, LinkStatus};
use edge_agent::outbox::Outbox;
use edge_agent::results::Results;
use edge_agent::shutdown::{self, Shutdown};
use edge_agent::supervise::Pulse;
use edge_agent::telemetry::Meter;
use edge_agent::update::Bundles;
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::session::{Runtime, Threads};
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::{BundleDigest, ClockState, Digest};
use tokio::sync::{mpsc, watch};

use super::until;

/// An agent that runs.
pub struct Agent {
    pub identity: Arc<Identity>,
    pub clock: Clock,
    pub outbox: Outbox,
    queue: Arc<FrameQueue>,
    meter: Arc<Meter>,
    inference: Inference,
    sampler: JoinHandle<()>,
    status: watch::Receiver<LinkStatus>,
    link: tokio::task::JoinHandle<()>,
    shutdown: watch::Sender<Shutdown>,
    _telemetry: mpsc::Sender<Telemetry>,
    _rules: watch::Sender<Arc<Rules>>,
    pushed: u64,
}

/// Everything is chosen: some by chance, the others by how uncertain the model was.
fn rules() -> Arc<Rules> {
    let selection = SelectionConfig {
        uncertainty_threshold: 0.0,
        random_rate: 0.3,
        budget_bytes_per_hour: 1 << 30,
        burst_bytes: 1 << 30,
        seed: Some(1),
    };
    Arc::new(Rules { config: Digest::ZERO, selection, mqtt_per_second: 1 })
}

impl Agent {
    /// Lays the test model's bundle where an update would have left it.
    pub fn install(data_dir: &Path) {
        let from: PathBuf =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data/linear-1");
        let manifest = std::fs::read(from.join("bundle.toml")).unwrap();
        let digest = BundleDigest(Digest::of(&manifest));
        let to = data_dir.join("bundles").join(digest.to_string());
        durable::create_dir(&to).unwrap();
        for name in ["bundle.toml", "model.onnx", "golden.json"] {
            durable::write(&to.join(name), &std::fs::read(from.join(name)).unwrap()).unwrap();
        }
        Bundles::new(data_dir).answered(digest).unwrap();
    }

    /// Starts on `data_dir`, with room for so many samples.
    pub fn start(data_dir: &Path, clock: Clock, max_rows: u64) -> Self {
        let identity = Arc::new(Identity::load(data_dir).unwrap());
        let limits = OutboxConfig { max_rows, ..OutboxConfig::default() };
        let device = identity.device().clone();
        let key = identity.signing_key();
        let outbox = Outbox::open(data_dir, &limits, device, key, clock.clone()).unwrap();
        let queue = Arc::new(FrameQueue::new(64));
        let meter = Arc::new(Meter::new(clock.monotonic()));
        let (results, results_mqtt) = Results::new(1);
        let (rules, latest_rules) = watch::channel(rules());
        let (sink, sampler) = Decide::new(clock.clone(), meter.clone(), results, latest_rules, 1);
        let inference = Inference::start(Parts {
            runtime: Runtime::load(None).unwrap(),
            threads: Threads(1),
            queue: queue.clone(),
            clock: clock.clone(),
            pulse: Pulse::default(),
            sink: Box::new(sink),
            confirm_within: Duration::from_secs(60),
            guards: Guards::unsafe_none(),
        })
        .unwrap();
        let sampler = sampler.spawn(outbox.clone()).unwrap();
        let (shutdown, signal) = shutdown::channel();
        let (telemetry, reports) = mpsc::channel(1);
        let (status, link) = link::start(LinkParts {
            data_dir: data_dir.to_owned(),
            identity: identity.clone(),
            clock: clock.clone(),
            outbox: outbox.clone(),
            inference: inference.clone(),
            results: results_mqtt,
            telemetry: reports,
            pulse: Pulse::default(),
            shutdown: signal,
        });
        Self {
            identity,
            clock,
            outbox,
            queue,
            meter,
            inference,
            sampler,
            status,
            link,
            shutdown,
            _telemetry: telemetry,
            _rules: rules,
            pushed: 0,
        }
    }

    /// Pushes so many frames and waits until each is answered and its sample signed.
    pub async fn answers(&mut self, frames: u64) {
        // Frames that come before there is a model are not taken.
        let queue = self.queue.clone();
        until("a model is there", move || queue.wait_accepting(Duration::ZERO)).await;
        for _ in 0..frames {
            self.pushed += 1;
            let grey = u8::try_from(self.pushed * 37 % 251).unwrap();
            self.queue.push(Box::new(Arrived {
                frame: Frame::new(28, 28, Channels::Grey, vec![grey; 784]).unwrap(),
                number: self.pushed,
                due: self.clock.monotonic(),
                captured_at: self.clock.now(),
                clock: self.clock.state(),
            }));
            let (outbox, meter, pushed) = (self.outbox.clone(), self.meter.clone(), self.pushed);
            until("a frame is answered and its sample signed", move || {
                meter.counters().frames_answered == pushed
                    && outbox.stats().signed_since_start == pushed
            })
            .await;
        }
    }

    /// Waits until it is connected, knows the time, and nothing waits for the hub any more.
    pub async fn has_arrived(&self) {
        until("connected", || self.status.borrow().connected).await;
        until("the clock is synced", || self.clock.state() == ClockState::Synced).await;
        let stats = || self.outbox.stats();
        until("all is stored", || stats().samples == 0 && stats().gaps == 0).await;
    }

    /// Ends as on a signal; how many frames were answered.
    pub async fn stop(self) -> u64 {
        self.shutdown.send_replace(Shutdown::Now);
        self.link.await.unwrap();
        self.queue.close();
        let (inference, sampler, outbox) = (self.inference, self.sampler, self.outbox);
        tokio::task::spawn_blocking(move || {
            inference.join();
            sampler.join().unwrap();
            outbox.close();
        })
        .await
        .unwrap();
        self.meter.counters().frames_answered
    }
}
