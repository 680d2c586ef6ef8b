//! The thread against real files and real owners.

use std::path::Path;

use fleetloop_models::picture::Frame;
use fleetloop_models::session::{Runtime, Threads};
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::sample::{MediaType, Selection};
use fleetloop_protocol::{BundleDigest, ClockState, UnixMillis};

use super::*;
use crate::clock::Clock;
use crate::durable;
use crate::frames::Popped;
use crate::infer::{Answer, Sink};
use crate::outbox::Draft;
use crate::source::SourceCounts;
use crate::supervise::Pulse;

struct Silent;

impl Sink for Silent {
    fn answered(&mut self, _: Answer) {}
    fn failed(&mut self, _: u64) {}
}

/// Counts begun and ended reloads.
#[derive(Clone, Default)]
struct Counted(Arc<std::sync::Mutex<(u32, u32)>>);

impl Announce for Counted {
    fn reloading(&self) {
        self.0.lock().unwrap().0 += 1;
    }
    fn reloaded(&self) {
        self.0.lock().unwrap().1 += 1;
    }
}

struct Bench {
    dir: tempfile::TempDir,
    reload: Reload,
    standing: watch::Receiver<Standing>,
    rules: watch::Receiver<Arc<Rules>>,
    telemetry_every: watch::Receiver<Duration>,
    queue: Arc<FrameQueue>,
    source_queue: Arc<FrameQueue>,
    outbox: Outbox,
    counted: Counted,
    _inference: Inference,
}

fn images(path: &Path, grey: u8) {
    let bytes = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1][..], &[grey]].concat();
    durable::write(path, &bytes).unwrap();
}

fn text(images: &str, more: &str) -> String {
    format!("data_dir = 'd'\n[source]\nkind = 'idx'\nimages = '{images}'\nrate_hz = 50\n{more}")
}

impl Bench {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        durable::create_dir(&dir.path().join("d")).unwrap();
        images(&dir.path().join("one"), 1);
        images(&dir.path().join("two"), 2);
        let path = dir.path().join("agent.toml");
        durable::write(&path, text("one", "").as_bytes()).unwrap();
        let config = Config::load(&path).unwrap();
        let clock = Clock::system(dir.path().join("clock.json")).unwrap();
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let device = "dev-1".parse().unwrap();
        let outbox =
            Outbox::open(dir.path(), &config.outbox, device, Arc::new(key), clock.clone()).unwrap();
        let (queue, source_queue) =
            (Arc::new(FrameQueue::new(256)), Arc::new(FrameQueue::new(10_000)));
        let inference = Inference::start(infer::Parts {
            runtime: Runtime::load(None).unwrap(),
            threads: Threads(1),
            queue: Arc::new(FrameQueue::new(1)),
            clock: clock.clone(),
            pulse: Pulse::default(),
            sink: Box::new(Silent),
            confirm_within: infer::confirm_within(50.0),
            guards: infer::Guards::unsafe_none(),
        })
        .unwrap();
        let source = source::open(&config.source).unwrap();
        let described = source.describe();
        let counts = Arc::new(SourceCounts::default());
        let (schedule, _) =
            source::spawn(source, 50.0, source_queue.clone(), clock, counts).unwrap();
        source_queue.set_accepting(true);
        let (rules_tx, rules) = watch::channel(Arc::new(Rules::of(&config)));
        let (every_tx, telemetry_every) = watch::channel(config.telemetry.every());
        let owners = Owners {
            rules: rules_tx,
            outbox: outbox.clone(),
            telemetry_every: every_tx,
            queue: queue.clone(),
            schedule,
            inference: inference.clone(),
        };
        let counted = Counted::default();
        let announce = Box::new(counted.clone());
        let (reload, standing, _) = spawn(path, config, described, owners, announce).unwrap();
        Self {
            dir,
            reload,
            standing,
            rules,
            telemetry_every,
            queue,
            source_queue,
            outbox,
            counted,
            _inference: inference,
        }
    }

    /// Puts `text` in the file's place, and has it read or waits for the poll to see it.
    async fn write(&mut self, text: &str, signal: bool) -> Standing {
        durable::write(&self.dir.path().join("agent.toml"), text.as_bytes()).unwrap();
        self.standing.borrow_and_update();
        if signal {
            self.reload.now();
        }
        self.standing.changed().await.unwrap();
        self.standing.borrow_and_update().clone()
    }

    /// The grey of the newest frame that the source gives.
    fn grey(&self) -> u8 {
        let mut newest: Option<Frame> = None;
        loop {
            match self.source_queue.pop(Duration::ZERO) {
                Popped::Frame(arrived) => newest = Some(arrived.frame),
                _ if newest.is_some() => return newest.unwrap().pixels()[0],
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

const MORE: &str = "[outbox]\nmax_rows = 7\n[telemetry]\nevery_s = 9\n\
                    [selection]\nrandom_rate = 0.25\n[results]\nmqtt_per_second = 3\n";

#[tokio::test]
async fn a_new_file_reaches_every_owner_and_what_has_to_wait_is_named() {
    let mut bench = Bench::start();
    assert_eq!(bench.grey(), 1);
    let new = text("two", &format!("{MORE}[http]\nlisten = '127.0.0.1:9'\n"));
    let standing = bench.write(&new, true).await;
    assert_eq!(standing.digest, Digest::of(new.as_bytes()));
    assert_eq!(standing.refused, None);
    assert_eq!(standing.at_next_start, ["http.listen"]);
    assert!(standing.source.contains("two (1 pictures)"), "{}", standing.source);
    let rules = bench.rules.borrow().clone();
    assert_eq!((rules.config, rules.mqtt_per_second), (standing.digest, 3));
    assert_eq!(rules.selection.random_rate, 0.25);
    assert_eq!(*bench.telemetry_every.borrow(), Duration::from_secs(9));
    // A frame or two of the old source may be on the way.
    while bench.grey() != 2 {}
    assert_eq!(*bench.counted.0.lock().unwrap(), (1, 1));
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_is_shown_and_a_right_one_clears_it() {
    let mut bench = Bench::start();
    let before = bench.standing.borrow().clone();
    let wrong = [
        "data_dir = [".to_owned(),
        text("one", "[selection]\nrandom_rate = 7\n[outbox]\nmax_rows = 0\n"),
        // Everything in it is right but the source, which is not there.
        text("none", MORE),
        // And here but the library of the next start.
        text("two", &format!("{MORE}[inference]\nlibrary = 'nowhere.so'\n")),
    ];
    for (wrong, words) in wrong.iter().zip(["cannot use", "random_rate", "none", "nowhere.so"]) {
        let standing = bench.write(wrong, true).await;
        let reason = standing.refused.clone().unwrap();
        assert!(reason.contains(words), "{reason}");
        assert_eq!(Standing { refused: None, ..standing }, before);
        assert_eq!(bench.rules.borrow().config, before.digest);
        assert_eq!(*bench.telemetry_every.borrow(), Duration::from_secs(60));
        assert_eq!(bench.grey(), 1);
    }
    std::fs::remove_file(bench.dir.path().join("agent.toml")).unwrap();
    // Without a signal: a rename is seen by the poll.
    let new = text("one", MORE);
    let standing = bench.write(&new, false).await;
    assert_eq!((standing.digest, standing.refused), (Digest::of(new.as_bytes()), None));
    let (begun, ended) = *bench.counted.0.lock().unwrap();
    assert_eq!((begun, ended), (4, 4), "only what a signal asked for is announced");
}

#[tokio::test]
async fn a_missing_file_is_said_and_the_old_configuration_stays() {
    let mut bench = Bench::start();
    let before = bench.standing.borrow_and_update().clone();
    std::fs::remove_file(bench.dir.path().join("agent.toml")).unwrap();
    bench.reload.now();
    bench.standing.changed().await.unwrap();
    let standing = bench.standing.borrow().clone();
    assert!(standing.refused.as_ref().is_some_and(|reason| reason.contains("missing")));
    assert_eq!(Standing { refused: None, ..standing }, before);
}

#[tokio::test]
async fn queue_and_outbox_take_their_new_limits() {
    let mut bench = Bench::start();
    bench.queue.set_accepting(true);
    bench
        .write(&text("one", "[inference]\nqueue_frames = 2\n[outbox]\nmax_rows = 7\n"), true)
        .await;
    for _ in 0..5 {
        if let Popped::Frame(frame) = bench.source_queue.pop(Duration::from_secs(30)) {
            bench.queue.push(frame);
        }
    }
    let counts = bench.queue.counts();
    assert_eq!((counts.frames_in, counts.waiting), (5, 2));
    for _ in 0..9 {
        drop(bench.outbox.append(draft()).unwrap());
    }
    bench.outbox.flush().await.unwrap();
    assert_eq!(bench.outbox.stats().samples, 7);
}

fn draft() -> Draft {
    Draft {
        captured_at: UnixMillis(1),
        clock: ClockState::Synced,
        model: BundleDigest(Digest::ZERO),
        config: Digest::ZERO,
        media_type: MediaType::Png,
        payload: vec![7; 100],
        selection: Selection::Random { rate: 0.1 },
        predictions: Vec::new(),
    }
}
