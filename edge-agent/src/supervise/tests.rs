//! The watcher against real threads' pulses and a manager that writes down what it hears.

use std::path::Path;
use std::sync::{Arc, Mutex};

use fleetloop_models::bundle::Bundle;
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::session::{Runtime, Threads};
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::{ClockState, UnixMillis};

use super::*;
use crate::clock::ManualTime;
use crate::config::OutboxConfig;
use crate::frames::{Arrived, FrameQueue};
use crate::infer::{self, Answer, Inference, Sink};
use crate::proof::Proof;

const WATCHDOG: Duration = Duration::from_secs(40);

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
    fn note(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }
}

impl Manager for Heard {
    fn ready(&self, status: &str) {
        self.note(&format!("ready: {status}"));
    }
    fn alive(&self) {
        self.note("alive");
    }
    fn status(&self, status: &str) {
        self.note(status);
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    time: ManualTime,
    clock: Clock,
    outbox: Outbox,
    inference: Pulse,
    link: Pulse,
    heard: Heard,
    watcher: Watcher<Heard>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, time) = Clock::manual(UnixMillis(5));
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let outbox = Outbox::open(
            dir.path(),
            &OutboxConfig::default(),
            "dev-1".parse().unwrap(),
            Arc::new(key),
            clock.clone(),
        )
        .unwrap();
        let (inference, link, heard) = (Pulse::default(), Pulse::default(), Heard::default());
        let parts = Parts {
            clock: clock.clone(),
            inference: inference.clone(),
            link: link.clone(),
            outbox: outbox.clone(),
            status: Box::new(|| "well".into()),
            watchdog: Some(WATCHDOG),
        };
        let watcher = Watcher::new(parts, heard.clone());
        Self { _dir: dir, time, clock, outbox, inference, link, heard, watcher }
    }

    fn beat(&self) {
        self.inference.beat(self.clock.monotonic());
        self.link.beat(self.clock.monotonic());
    }

    /// Looks, asks and lets the outbox's thread answer.
    fn look(&mut self) -> Duration {
        let wait = self.watcher.look();
        futures::executor::block_on(self.outbox.flush()).unwrap();
        wait
    }
}

#[test]
fn the_agent_is_ready_when_every_thread_was_seen_and_pings_while_they_are() {
    let mut bench = Bench::new();
    assert_eq!(bench.look(), UNTIL_READY);
    bench.beat();
    assert_eq!(bench.look(), WATCHDOG / 4);
    assert_eq!(bench.heard.take(), ["ready: well", "alive"]);
    bench.time.advance(WATCHDOG / 4);
    bench.look();
    assert_eq!(bench.heard.take(), ["alive"]);
}

#[test]
fn each_thread_that_is_silent_for_too_long_stops_the_pings_and_is_named() {
    for silent in ["inference", "link"] {
        let mut bench = Bench::new();
        bench.look();
        bench.beat();
        bench.look();
        bench.heard.take();
        let alive = if silent == "link" { bench.inference.clone() } else { bench.link.clone() };
        for _ in 0..8 {
            bench.time.advance(WATCHDOG / 8);
            alive.beat(bench.clock.monotonic());
            bench.look();
        }
        let expected = ["alive", "alive", "alive", "alive", &format!("{silent} does not move")];
        assert_eq!(bench.heard.take(), expected);
        bench.beat();
        bench.look();
        assert_eq!(bench.heard.take(), ["well", "alive"], "it pings again once it moves");
    }
}

#[test]
fn an_outbox_whose_thread_is_gone_stops_the_pings() {
    let mut bench = Bench::new();
    bench.look();
    bench.beat();
    bench.look();
    bench.watcher.look();
    bench.heard.take();
    bench.outbox.close();
    bench.time.advance(WATCHDOG / 2 + Duration::from_millis(1));
    bench.beat();
    // What it answered before its end is heard once.
    bench.watcher.look();
    bench.time.advance(WATCHDOG / 2 + Duration::from_millis(1));
    bench.beat();
    bench.heard.take();
    bench.watcher.look();
    assert_eq!(bench.heard.take(), ["outbox does not move"]);
}

/// A sink that never comes back from its first answer, until it is let go.
struct Stuck(std::sync::mpsc::Receiver<()>, std::sync::mpsc::SyncSender<()>);

impl Sink for Stuck {
    fn answered(&mut self, _: Answer) {
        self.1.send(()).unwrap();
        let _ = self.0.recv();
    }
    fn failed(&mut self, _: u64) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_inference_thread_does_not_move_its_pulse() {
    let (go, stuck) = sync_channel(1);
    let (hanging, hangs) = sync_channel(1);
    let (clock, time) = Clock::manual(UnixMillis(0));
    let queue = Arc::new(FrameQueue::new(10));
    let pulse = Pulse::default();
    let inference = Inference::start(infer::Parts {
        runtime: Runtime::load(None).unwrap(),
        threads: Threads(1),
        queue: queue.clone(),
        clock: clock.clone(),
        pulse: pulse.clone(),
        sink: Box::new(Stuck(stuck, hanging)),
        confirm_within: Duration::from_millis(1),
        guards: infer::Guards::unsafe_none(),
    })
    .unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data/linear-1");
    inference.swap(Bundle::open(&dir, None).unwrap(), Proof::unsafe_without()).await.unwrap();
    queue.push(Box::new(Arrived {
        frame: Frame::new(28, 28, Channels::Grey, vec![9; 784]).unwrap(),
        number: 0,
        due: Duration::ZERO,
        captured_at: UnixMillis(0),
        clock: ClockState::Unsynced,
    }));
    hangs.recv().unwrap();
    time.advance(WATCHDOG);
    assert!(!pulse.moved_within(WATCHDOG / 2, clock.monotonic()));
    drop(go);
    queue.close();
    inference.join();
    assert!(pulse.moved_within(WATCHDOG / 2, clock.monotonic()), "it moves once it goes on");
}
