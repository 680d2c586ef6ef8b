//! Against the real ONNX Runtime and the real test bundles of the models crate.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fleetloop_models::bundle::{Files, Role};
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_protocol::{ClockState, UnixMillis};

use super::*;
use crate::proof::{Limits, Proof, Prover};
use crate::update::models::ModelHost;

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
}

struct TallySink(Arc<Tally>);

impl Sink for TallySink {
    fn answered(&mut self, _: Answer) {
        self.0.answered.fetch_add(1, Ordering::SeqCst);
    }
    fn failed(&mut self, _: u64) {
        self.0.failed.fetch_add(1, Ordering::SeqCst);
    }
}

struct Bench {
    queue: Arc<FrameQueue>,
    tally: Arc<Tally>,
    inference: Inference,
    pushed: u64,
}

fn fixture(version: u32) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../models/tests/data/linear-{version}"))
}

fn bundle(version: u32) -> Bundle {
    Bundle::open(&fixture(version), None).unwrap()
}

/// Bundle 1 with the golden cases of bundle 2, consistent in every digest.
fn wrong_golden() -> Bundle {
    let read = |version, name: &str| std::fs::read(fixture(version).join(name)).unwrap();
    let mut manifest = bundle(1).manifest().clone();
    let golden = read(2, "golden.json");
    for entry in &mut manifest.files {
        if entry.role == Role::Golden {
            entry.len_bytes = golden.len() as u64;
            entry.sha256 = fleetloop_protocol::Digest::of(&golden);
        }
    }
    let manifest = manifest.to_toml().unwrap().into_bytes();
    let files = [(Role::Model, read(1, "model.onnx")), (Role::Golden, golden)].into();
    Bundle::from_parts(manifest, files).unwrap()
}

fn frame(grey: u8) -> Frame {
    Frame::new(28, 28, Channels::Grey, vec![grey; 784]).unwrap()
}

impl Bench {
    fn start(confirm_within: Duration) -> Self {
        Self::guarded(confirm_within, Guards::unsafe_none())
    }

    fn guarded(confirm_within: Duration, guards: Guards) -> Self {
        let queue = Arc::new(FrameQueue::new(4096));
        let tally = Arc::new(Tally::default());
        let (clock, _) = Clock::manual(UnixMillis(0));
        let inference = Inference::start(Parts {
            runtime: Runtime::load(None).unwrap(),
            threads: Threads(1),
            queue: queue.clone(),
            clock,
            pulse: Pulse::default(),
            sink: Box::new(TallySink(tally.clone())),
            confirm_within,
            guards,
        })
        .unwrap();
        Self { queue, tally, inference, pushed: 0 }
    }

    fn push(&mut self) {
        self.queue.push(Box::new(Arrived {
            frame: frame(255),
            number: self.pushed,
            due: Duration::ZERO,
            captured_at: UnixMillis(0),
            clock: ClockState::Unsynced,
        }));
        self.pushed += 1;
    }

    /// Swaps while frames keep coming, one a millisecond.
    async fn swap_under_load(&mut self, bundle: Bundle) -> Result<(), SwapError> {
        let inference = self.inference.clone();
        let mut swap =
            tokio::spawn(async move { inference.swap(bundle, Proof::unsafe_without()).await });
        loop {
            // Cancel-safe: the handle is borrowed and the sleep holds nothing.
            tokio::select! {
                result = &mut swap => return result.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(1)) => self.push(),
            }
        }
    }

    fn running(&self) -> Option<BundleDigest> {
        *self.inference.running().borrow()
    }

    fn finish(self) -> (u64, u64, u64) {
        self.queue.close();
        self.inference.join();
        let counts = self.queue.counts();
        assert_eq!((counts.frames_dropped, counts.waiting), (0, 0));
        let load = |count: &AtomicU64| count.load(Ordering::SeqCst);
        (counts.frames_in, load(&self.tally.answered), load(&self.tally.failed))
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn twenty_swaps_under_open_loop_load_drop_no_frame() {
    let mut bench = Bench::start(LONG);
    for swap in 0..20u32 {
        let next = bundle(1 + swap % 2);
        let digest = next.digest();
        bench.swap_under_load(next).await.unwrap();
        assert_eq!(bench.running(), Some(digest));
    }
    let (frames_in, answered, failed) = bench.finish();
    assert!(frames_in >= 20, "{frames_in}");
    assert_eq!((answered, failed), (frames_in, 0));
}

#[tokio::test]
async fn a_bundle_with_a_wrong_golden_case_is_refused_and_the_old_model_goes_on_answering() {
    let mut bench = Bench::start(LONG);
    bench.swap_under_load(bundle(1)).await.unwrap();
    let error = bench.swap_under_load(wrong_golden()).await.unwrap_err();
    assert!(matches!(error, SwapError::Golden { .. }), "{error}");
    assert_eq!(bench.running(), Some(bundle(1).digest()));
    (0..50).for_each(|_| bench.push());
    let (frames_in, answered, failed) = bench.finish();
    assert_eq!((answered, failed), (frames_in, 0));
}

#[tokio::test]
async fn a_swap_that_no_frame_confirms_is_taken_back() {
    let mut bench = Bench::start(Duration::from_millis(50));
    let first = bundle(1).digest();
    // Nothing to go back to: granted without a frame, in use with the first one.
    bench.inference.swap(bundle(1), Proof::unsafe_without()).await.unwrap();
    assert_eq!(bench.running(), None);
    bench.push();
    let mut running = bench.inference.running();
    running.wait_for(|now| *now == Some(first)).await.unwrap();
    let error = bench.inference.swap(bundle(2), Proof::unsafe_without()).await.unwrap_err();
    assert!(matches!(error, SwapError::NoFrame { .. }), "{error}");
    bench.push();
    assert_eq!(bench.running(), Some(first));
    let (frames_in, answered, failed) = bench.finish();
    assert_eq!((frames_in, answered, failed), (2, 2, 0));
}

#[tokio::test]
async fn a_model_whose_first_answer_is_no_number_goes_back_and_the_frame_is_answered_all_the_same()
{
    let mut bench = Bench::start(LONG);
    bench.swap_under_load(bundle(1)).await.unwrap();
    let error = bench.swap_under_load(overflowing()).await.unwrap_err();
    assert!(matches!(error, SwapError::FirstAnswer { source: None, .. }), "{error}");
    assert_eq!(bench.running(), Some(bundle(1).digest()));
    let (frames_in, answered, failed) = bench.finish();
    assert_eq!((answered, failed), (frames_in, 0));
}

/// Bundle 1 with weights so large that its logits are finite on a dark golden case and infinite on
/// a white frame.
fn overflowing() -> Bundle {
    use fleetloop_models::golden::GoldenCases;
    use fleetloop_models::session::Session;
    let mut model = std::fs::read(fixture(1).join("model.onnx")).unwrap();
    // The tensor's name, then field 9 (raw data) of 9408 bytes: 3 x 784 floats.
    let marker = b"weightJ\xc0\x49";
    let at = model.windows(marker.len()).position(|window| window == marker).unwrap();
    let weights = &mut model[at + marker.len()..][..3 * 784 * 4];
    for (i, weight) in weights.chunks_exact_mut(4).enumerate() {
        let value = if i % 784 < 2 { 3e38f32 } else { 0.0 };
        weight.copy_from_slice(&value.to_le_bytes());
    }
    let mut manifest = bundle(1).manifest().clone();
    let runtime = Runtime::load(None).unwrap();
    let graph = fleetloop_models::graph::Graph::check(model.clone()).unwrap();
    let mut session = Session::from_model(&runtime, &graph, &manifest, Threads(1)).unwrap();
    let dark = (fleetloop_protocol::sample::MediaType::Png, frame(63).encode_png().unwrap());
    let golden = GoldenCases::record(&mut session, &[dark], 0.01).unwrap().to_json().unwrap();
    let files = Files::from([(Role::Model, model), (Role::Golden, golden)]);
    for entry in &mut manifest.files {
        let bytes = &files[&entry.role];
        entry.len_bytes = bytes.len() as u64;
        entry.sha256 = fleetloop_protocol::Digest::of(bytes);
    }
    Bundle::from_parts(manifest.to_toml().unwrap().into_bytes(), files).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_graph_of_another_model_is_caught_by_the_golden_cases_and_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { wall_s: 60, cpu_s: 60, memory_mb: 512, file_mb: 64, run_s: 60 };
    let nowhere = Prover::of("/no/such/program".into(), dir.path(), limits);
    let guards = Guards { proving: Proving::InChild(nowhere), ..Guards::unsafe_none() };
    let mut bench = Bench::guarded(LONG, guards);
    let runtime = Runtime::load(None).unwrap();
    let (one, two) = (bundle(1), bundle(2));
    // Whole and under the right key, as whoever can write to the data folder could have made it.
    let written = dir.path().join("two.ort");
    fleetloop_models::session::Session::optimise(&runtime, &two, &written).unwrap();
    let bytes = std::fs::read(&written).unwrap();
    let sum = fleetloop_protocol::Digest::of(&bytes);
    let graph = fleetloop_models::session::Optimised::of(bytes, 0, sum).unwrap();
    let kept = Kept::new(dir.path(), one.digest(), &runtime);
    kept.keep(&crate::proof::Proven::Optimised(graph));
    assert!(dir.path().join(optimised::FILE).exists());
    let proof = bench.inference.prove(one.digest(), dir.path()).await.unwrap();
    let error = ModelHost::swap(&bench.inference, one, dir.path(), proof).await.unwrap_err();
    assert_eq!(error.retry, crate::update::error::Retry::AFewTimes, "{error}");
    assert!(!dir.path().join(optimised::FILE).exists());
    bench.push();
}

#[test]
fn a_missing_runtime_library_says_how_to_get_it() {
    let error = Runtime::load(Some(Path::new("/no/such/libonnxruntime.so"))).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/no/such/libonnxruntime.so") && text.contains("xtask setup"), "{text}");
}
