//! Models that pass the check and never come to an end, or take all memory: tried in a child, they are
//! refused, and the model that answers goes on answering.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_agent::clock::Clock;
use edge_agent::durable;
use edge_agent::frames::{Arrived, FrameQueue};
use edge_agent::infer::{Answer, Guards, Inference, Parts, Proving, Sink, SwapError, optimised};
use edge_agent::proof::{Limits, Prover};
use edge_agent::supervise::Pulse;
use edge_agent::update::Installed;
use edge_agent::update::trial::HUNG_STATUS;
use fleetloop_models::bundle::{Bundle, MANIFEST_FILE};
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::session::{Runtime, Threads, keep_to_itself};
use fleetloop_protocol::{BundleDigest, ClockState, UnixMillis};

use crate::device::Device;

#[path = "../../../models/tests/hostile/mod.rs"]
mod models;

use models::bundle::Parts as Hostile;
use models::{build, endless};

/// Enough for a good model on a machine with other work, and little for a bad one.
const LIMITS: Limits = Limits { wall_s: 300, cpu_s: 6, memory_mb: 512, file_mb: 64, run_s: 1 };

#[derive(Default)]
struct Tally(AtomicU64);

struct TallySink(Arc<Tally>);

impl Sink for TallySink {
    fn answered(&mut self, _: Answer) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
    fn failed(&mut self, number: u64) {
        panic!("frame {number} was not answered");
    }
}

/// A model at work on bright frames, and a folder of bundles.
struct Bench {
    dir: tempfile::TempDir,
    inference: Inference,
    queue: Arc<FrameQueue>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    source: Option<std::thread::JoinHandle<()>>,
}

impl Bench {
    async fn new(program: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let guards = Guards {
            proving: Proving::InChild(Prover::of(program.into(), dir.path(), LIMITS)),
            run_limit: Duration::from_secs(60),
            hung: Box::new(|model| panic!("{model} hangs")),
        };
        let mut bench = Self::guarded(guards).await;
        bench.dir = dir;
        bench
    }

    async fn guarded(guards: Guards) -> Self {
        keep_to_itself();
        let dir = tempfile::tempdir().unwrap();
        let (queue, tally) = (Arc::new(FrameQueue::new(1 << 16)), Arc::new(Tally::default()));
        let (clock, _) = Clock::manual(UnixMillis(0));
        let inference = Inference::start(Parts {
            runtime: Runtime::load(None).unwrap(),
            threads: Threads(1),
            queue: queue.clone(),
            clock,
            pulse: Pulse::default(),
            sink: Box::new(TallySink(tally.clone())),
            confirm_within: Duration::from_secs(60),
            guards,
        })
        .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let source = std::thread::spawn({
            let (queue, stop) = (queue.clone(), stop.clone());
            move || {
                let numbers = (0..).take_while(|_| !stop.load(Ordering::Relaxed));
                for number in numbers {
                    queue.push(Box::new(Arrived {
                        frame: Frame::new(28, 28, Channels::Grey, vec![255; 784]).unwrap(),
                        number,
                        due: Duration::ZERO,
                        captured_at: UnixMillis(0),
                        clock: ClockState::Unsynced,
                    }));
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { dir, inference, queue, tally, stop, source: Some(source) }
    }

    /// Puts a bundle into its folder, as a fetch leaves it.
    fn lay(&self, model: &[u8], version: u32) -> (Bundle, PathBuf) {
        let parts = Hostile::of(model, version);
        let bundle = Bundle::from_parts(parts.manifest, parts.files).unwrap();
        let folder = self.dir.path().join(bundle.digest().to_string());
        lay(&bundle, &folder);
        (bundle, folder)
    }

    /// Proves a bundle and puts it to work.
    async fn install(&self, model: &[u8], version: u32) -> Result<BundleDigest, SwapError> {
        let (bundle, folder) = self.lay(model, version);
        let digest = bundle.digest();
        let proof = self.inference.prove(digest, &folder).await?;
        self.inference.swap(bundle, proof).await?;
        Ok(digest)
    }

    fn running(&self) -> Option<BundleDigest> {
        *self.inference.running().borrow()
    }

    fn answered(&self) -> u64 {
        self.tally.0.load(Ordering::SeqCst)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.source.take().map(std::thread::JoinHandle::join));
        self.queue.close();
        self.inference.join();
    }
}

fn lay(bundle: &Bundle, folder: &Path) {
    durable::create_dir(folder).unwrap();
    for (name, bytes) in bundle.files() {
        durable::write(&folder.join(name), bytes).unwrap();
    }
    assert!(folder.join(MANIFEST_FILE).is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_model_without_an_end_is_refused_in_a_child_and_the_one_at_work_answers_on() {
    let bench = Bench::new(env!("CARGO_BIN_EXE_edge-agent")).await;
    let plain = bench.install(&build::plain(), 1).await.unwrap();
    for (case, version) in endless::all().into_iter().zip(2..) {
        let before = bench.answered();
        let error = bench.install(&case.file, version).await.unwrap_err();
        let SwapError::Refused { reason, .. } = &error else { panic!("{}: {error}", case.name) };
        assert!(reason.contains(case.reason), "{}: {reason}", case.name);
        assert_eq!(bench.running(), Some(plain), "{}", case.name);
        assert!(bench.answered() > before, "{}: frames were answered meanwhile", case.name);
        assert_eq!(bench.inference.trying(), None);
    }
    let error = bench.install(&endless::all()[1].file, 99).await.unwrap_err().to_string();
    assert!(error.contains("recent frame") && error.contains("run_limit_s"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_proven_is_loaded_again_without_a_child_and_what_is_damaged_is_not() {
    let bench = Bench::new(env!("CARGO_BIN_EXE_edge-agent")).await;
    let plain = build::plain();
    bench.install(&plain, 1).await.unwrap();
    let (bundle, folder) = bench.lay(&plain, 1);
    let kept = folder.join(optimised::FILE);
    let bytes = std::fs::read(&kept).unwrap();
    assert!(bytes.len() > 200, "it holds the optimised graph: {}", bytes.len());
    drop(bench);

    let bench = Bench::new("/no/such/program").await;
    bench.inference.prove(bundle.digest(), &folder).await.unwrap_err();
    lay(&bundle, &folder);
    durable::write(&kept, &bytes).unwrap();
    let proof = bench.inference.prove(bundle.digest(), &folder).await.unwrap();
    bench.inference.swap(bundle.clone(), proof).await.unwrap();
    durable::write(&kept, &bytes[..bytes.len() - 1]).unwrap();
    let error = bench.inference.prove(bundle.digest(), &folder).await.unwrap_err();
    assert!(matches!(error, SwapError::Untried { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_nobody_waits_for_ends_and_the_next_one_begins() {
    let bench = Bench::new(env!("CARGO_BIN_EXE_edge-agent")).await;
    bench.install(&build::plain(), 1).await.unwrap();
    let (endless, folder) = bench.lay(&endless::all()[0].file, 2);
    let trial = bench.inference.prove(endless.digest(), &folder);
    assert!(tokio::time::timeout(Duration::from_millis(300), trial).await.is_err());
    assert_eq!(bench.inference.trying(), None);
    let other = bench.install(&build::plain(), 3).await.unwrap();
    assert_eq!(bench.running(), Some(other));
}

#[test]
fn a_check_of_an_endless_model_ends_and_says_so() {
    let device = Device::new();
    device.configure("bright", 20, "[inference]\nrun_limit_s = 1\n");
    let parts = Hostile::of(&endless::all()[0].file, 1);
    let bundle = Bundle::from_parts(parts.manifest, parts.files).unwrap();
    let folder = device.dir.path().join("bundle");
    lay(&bundle, &folder);
    let check = device.command("check", &[]).arg("--bundle").arg(&folder).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(!check.status.success());
    let trial = said.lines().find(|line| line.contains("trial")).unwrap_or_default();
    assert!(trial.contains("FAIL") && trial.contains("run_limit_s"), "{said}");
}

/// An agent has come to a model that has no end on bright frames, and the light goes on.
fn ends_on(model: &[u8]) {
    let device = Device::new();
    let before = device.install(1, None);
    let parts = Hostile::of(model, 7);
    let bundle = Bundle::from_parts(parts.manifest, parts.files).unwrap();
    lay(&bundle, &device.data().join("bundles").join(bundle.digest().to_string()));
    let installed = Installed { current: Some(bundle.digest()), previous: Some(before) };
    let json = serde_json::to_vec(&installed).unwrap();
    durable::write(&device.data().join("current.json"), &json).unwrap();
    let limit = "[inference]\nrun_limit_s = 1\n";
    device.configure("dark", 20, limit);

    let agent = device.start(&[]);
    agent.until_answers(bundle.digest());
    device.configure("bright", 20, limit);
    let ended = agent.ends();
    assert_eq!(ended.code(), Some(HUNG_STATUS), "{ended}");

    let agent = device.start(&[]);
    agent.until_answers(before);
    agent.stop();
}

#[test]
fn an_agent_whose_model_answers_no_frame_in_time_ends_and_starts_on_the_model_before() {
    ends_on(&endless::all()[1].file);
}

#[test]
fn an_agent_ends_on_a_node_that_the_runtime_cannot_end_and_starts_on_the_model_before() {
    let one_node = endless::all().pop().unwrap();
    assert!(one_node.name.starts_with("one node"), "{}", one_node.name);
    let begun = Instant::now();
    ends_on(&one_node.file);
    // The node alone takes a minute: it was not waited for.
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
}
