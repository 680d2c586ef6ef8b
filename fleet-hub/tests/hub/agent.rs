//! The agent's own outbox and link against the hub, with the way between them cut.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edge_agent::clock::Clock;
use edge_agent::config::OutboxConfig;
use edge_agent::frames::FrameQueue;
use edge_agent::identity::Identity;
use edge_agent::infer::{self, Answer, Inference, Sink};
use edge_agent::link::{self, LinkParts, LinkStatus};
use edge_agent::outbox::{Draft, Outbox};
use edge_agent::shutdown::{self, Shutdown};
use edge_agent::supervise::Pulse;
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::session::{Runtime, Threads};
use fleetloop_protocol::sample::{MediaType, Selection};
use fleetloop_protocol::{BundleDigest, ClockState, Digest, UnixMillis};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::device::{PATIENCE, picture};
use crate::rig::Rig;

/// Where the first connection that sends so much is cut, in bytes.
const CUT_AT: usize = 2_000_000;

/// Where the hub is, as its devices see it.
const FRAIL: &str = "127.0.0.2";

/// A way from [`FRAIL`] to `port` that is cut once. Returns how often it was cut.
async fn frail_way(port: u16) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind((FRAIL, port)).await.unwrap();
    let cuts = Arc::new(AtomicUsize::new(0));
    let counted = cuts.clone();
    tokio::spawn(async move {
        while let Ok((device, _)) = listener.accept().await {
            let (hub, cuts) =
                (TcpStream::connect(("127.0.0.1", port)).await.unwrap(), cuts.clone());
            tokio::spawn(carry(device, hub, cuts));
        }
    });
    counted
}

async fn carry(device: TcpStream, hub: TcpStream, cuts: Arc<AtomicUsize>) {
    let ((mut from_device, mut to_device), (mut from_hub, mut to_hub)) =
        (device.into_split(), hub.into_split());
    let back = tokio::io::copy(&mut from_hub, &mut to_device);
    let forth = async {
        let (mut carried, mut buffer) = (0, vec![0; 64 * 1024]);
        while let Ok(n @ 1..) = from_device.read(&mut buffer).await {
            carried += n;
            let first = || cuts.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if (carried >= CUT_AT && first()) || to_hub.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    // Whichever ends first ends both: that is the cut.
    tokio::select! {
        _ = back => {}
        () = forth => {}
    }
}

/// There are no frames to answer.
struct Nobody;

impl Sink for Nobody {
    fn answered(&mut self, _answer: Answer) {}
    fn failed(&mut self, _number: u64) {}
}

pub struct Agent {
    pub outbox: Outbox,
    pub status: watch::Receiver<LinkStatus>,
    stop: watch::Sender<Shutdown>,
    link: tokio::task::JoinHandle<()>,
    _results: mpsc::Sender<Vec<u8>>,
}

impl Agent {
    /// Starts on `dir`, over the system's clock.
    pub fn start(dir: &Path) -> Self {
        Self::start_at(dir, Clock::system(dir.join("clock.json")).unwrap())
    }

    /// Starts on `dir`, over another clock.
    pub fn start_at(dir: &Path, clock: Clock) -> Self {
        let identity = Arc::new(Identity::load(dir).unwrap());
        let device = identity.device().clone();
        let key = identity.signing_key();
        let outbox =
            Outbox::open(dir, &OutboxConfig::default(), device, key, clock.clone()).unwrap();
        let inference = Inference::start(infer::Parts {
            runtime: Runtime::load(None).unwrap(),
            threads: Threads(1),
            queue: Arc::new(FrameQueue::new(1)),
            clock: clock.clone(),
            pulse: Pulse::default(),
            sink: Box::new(Nobody),
            confirm_within: Duration::from_secs(1),
            guards: infer::Guards::unsafe_none(),
        })
        .unwrap();
        let (stop, shutdown) = shutdown::channel();
        let (results_tx, results) = mpsc::channel(1);
        let (_, telemetry) = mpsc::channel(1);
        let (status, link) = link::start(LinkParts {
            data_dir: dir.to_owned(),
            identity,
            clock,
            outbox: outbox.clone(),
            inference,
            results,
            telemetry,
            pulse: Pulse::default(),
            shutdown,
        });
        Self { outbox, status, stop, link, _results: results_tx }
    }

    /// Signs a sample with that payload.
    pub async fn append(&self, payload: Vec<u8>) {
        let draft = Draft {
            captured_at: UnixMillis(1),
            clock: ClockState::Unsynced,
            model: BundleDigest(Digest::of(b"model")),
            config: Digest::of(b"config"),
            media_type: MediaType::Png,
            payload,
            selection: Selection::Uncertain { score: 0.5 },
            predictions: Vec::new(),
        };
        self.outbox.append(draft).unwrap().await.unwrap().unwrap();
    }

    /// Waits until every sample has its receipt.
    pub async fn emptied(&self) {
        let emptied = async {
            while self.outbox.stats().samples > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, emptied).await.expect("the outbox was never emptied");
    }

    /// Ends as on a signal that leaves time.
    pub async fn drain(self) {
        self.end(Shutdown::Drain).await;
    }

    /// Ends as on a signal that leaves none.
    pub async fn stop(self) {
        self.end(Shutdown::Now).await;
    }

    async fn end(self, how: Shutdown) {
        self.stop.send_replace(how);
        self.link.await.unwrap();
        tokio::task::spawn_blocking(move || self.outbox.close()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stopped_is_offline_at_the_hub_at_once_and_online_when_it_is_back() {
    use fleetloop_protocol::api::devices::{Device, Presence};

    let rig = Rig::start().await;
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system(dir.path().join("clock.json")).unwrap();
    edge_agent::enroll::enroll_at(&rig.token().await, dir.path(), &clock).await.unwrap();
    let until = async |wanted| {
        let waiting = async {
            loop {
                let all: Vec<Device> = rig.admin().get("list devices", "/devices").await.unwrap();
                if all[0].presence == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("never {wanted:?}"));
    };
    until(Presence::Never).await;
    for _ in 0..2 {
        let agent = Agent::start(dir.path());
        until(Presence::Online).await;
        agent.drain().await;
        until(Presence::Stopped).await;
    }
}

/// A frame whose PNG has more than five megabytes.
fn frame() -> Frame {
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Frame::new(2600, 2000, Channels::Grey, noise.take(2600 * 2000).collect()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_five_megabytes_reaches_the_hub_over_a_way_that_is_cut_in_the_middle() {
    let rig = Rig::start_with(|config| {
        config.hosts = vec![FRAIL.into()];
        config.mqtt_listen.set_ip(std::net::Ipv4Addr::UNSPECIFIED.into());
        config.admin_listen.set_ip(std::net::Ipv4Addr::UNSPECIFIED.into());
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system(dir.path().join("clock.json")).unwrap();
    edge_agent::enroll::enroll_at(&rig.token().await, dir.path(), &clock).await.unwrap();
    let cuts = frail_way(rig.config.device_listen.port()).await;

    let agent = Agent::start(dir.path());
    let frame = frame();
    let payload = frame.encode_png().unwrap();
    assert!(payload.len() > 5_000_000, "{}", payload.len());
    let digest = Digest::of(&payload);
    agent.append(payload).await;
    agent.append(picture(b"a small one")).await;
    agent.emptied().await;
    assert_eq!(cuts.load(Ordering::SeqCst), 1);
    let stats = agent.outbox.stats();
    assert_eq!((stats.samples_receipted_total, stats.uploads, stats.bytes), (2, 0, 0));
    let stored = rig.state().payloads.get(digest).await.unwrap();
    assert_eq!(Frame::decode(MediaType::Png, &stored).unwrap(), frame);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 2);
    agent.stop().await;
}
