//! Runs that are killed, out of bounds or out of disk: what they leave, and how they go on.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::tensor::Device;
use trainer::graph::{Graph, Sizes};
use trainer::onnx::Model;
use trainer::starter::{Head, Kind, starter};
use trainer::train::checkpoint::{Foreign, Key, Place};
use trainer::train::{Groups, Recipe, Targets, Task, TrainError, TrainingSet, train};

use super::data;

/// Dropout, running statistics, momentum, shares of groups, changed pictures and early stopping:
/// everything that has a state.
const RECIPE: &str = r#"
epochs = 40
batch_size = 8
warmup_epochs = 0.5
optimizer = "sgd"
learning_rate = 0.01
nesterov = true
[group_share]
fleet = 0.5
[augment]
probability = 0.7
shift = 0.2
brightness = [0.7, 1.4]
[early_stopping]
patience = 40
validation_share = 0.2
"#;

/// A folder with a dataset, a recipe and a base with batch normalisation and dropout.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new(recipe: &str) -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        data::folder(&bench.path("set"), 80);
        trainer::durable::write(&bench.path("recipe.toml"), recipe.as_bytes()).unwrap();
        trainer::durable::write(&bench.path("base.onnx"), &super::forward::varied()).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `trainer train`, by one thread and with seed 5.
    fn train(&self, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        let fixed = [
            "train",
            "--base",
            "base.onnx",
            "--measure",
            "--dataset",
            "set",
            "--recipe",
            "recipe.toml",
        ];
        command
            .args(fixed)
            .args(["--threads", "1", "--out", out])
            .args(if more.contains(&"--seed") { &[][..] } else { &["--seed", "5"] })
            .args(more)
            .current_dir(self.0.path())
            .env("FLEETLOOP_ORT_LIB", data::runtime().library())
            .stderr(Stdio::piped());
        command
    }

    fn model(&self, out: &str) -> Vec<u8> {
        std::fs::read(self.path(out).join("model.onnx")).unwrap()
    }

    fn record(&self, out: &str) -> trainer::record::RunRecord {
        let bytes = std::fs::read(self.path(out).join("run-record.json")).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file that was replaced is another one.
fn version(path: &Path) -> Option<(u64, i64, i64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.ino(), about.mtime(), about.mtime_nsec()))
}

/// Kills the process with SIGKILL once that many checkpoints have come.
pub fn kill_after(child: &mut Child, folder: &Path, checkpoints: usize) {
    let files = ["checkpoint-0", "checkpoint-1"].map(|file| folder.join(file));
    let look = || files.each_ref().map(|file| version(file));
    let (mut last, mut come) = (look(), 0);
    while come < checkpoints {
        assert!(child.try_wait().unwrap().is_none(), "it ended after {come} checkpoints");
        std::thread::sleep(std::time::Duration::from_millis(1));
        let now = look();
        come += usize::from(now != last);
        last = now;
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_that_is_killed_and_goes_on_ends_in_the_bytes_of_one_that_was_not() {
    let bench = Bench::new(RECIPE);
    done(&bench.train("whole", &[]).output().unwrap());
    assert!(!bench.path("whole.partial").exists(), "a run that ends takes its checkpoints along");

    let every_step = ["--checkpoint-every", "0"];
    let partial = bench.path("killed.partial");
    for checkpoints in [1, 17, 30, 2] {
        let mut child = bench.train("killed", &every_step).spawn().unwrap();
        kill_after(&mut child, &partial, checkpoints);
        assert!(!bench.path("killed").exists());
    }
    // What a torn file leaves is the one before.
    let newest = ["checkpoint-0", "checkpoint-1"].map(|file| partial.join(file));
    let newest = newest.iter().max_by_key(|file| version(file).map(|v| (v.1, v.2))).unwrap();
    let bytes = std::fs::read(newest).unwrap();
    trainer::durable::write(newest, &bytes[..bytes.len() / 2]).unwrap();
    let last = bench.train("killed", &every_step).output().unwrap();
    done(&last);
    assert!(text(&last).contains("a damaged checkpoint is not used"), "{}", text(&last));
    assert!(!partial.exists());

    assert_eq!(bench.model("whole"), bench.model("killed"));
    let (whole, killed) = (bench.record("whole"), bench.record("killed"));
    assert_eq!(whole.reproducible, killed.reproducible);
    assert_eq!(whole.measured.resumed_at_step, None);
    let steps = killed.measured.resumed_at_step;
    assert!(steps.is_some_and(|step| step > 40), "{steps:?}");
}

#[test]
fn the_checkpoint_of_another_run_is_refused_by_what_differs() {
    let bench = Bench::new(RECIPE);
    let mut child = bench.train("out", &["--checkpoint-every", "0"]).spawn().unwrap();
    kill_after(&mut child, &bench.path("out.partial"), 3);
    let other = bench.train("out", &["--seed", "6"]).output().unwrap();
    assert_eq!(other.status.code(), Some(1));
    let text = text(&other);
    assert!(text.contains("another seed;") && text.contains("out.partial"), "{text}");
    assert!(!bench.path("out").exists());
    done(&bench.train("out", &[]).output().unwrap());
}

/// A bench whose training goes out of bounds after some epochs, and its base.
fn out_of_bounds() -> (Bench, Vec<u8>) {
    // Decay by ten a step turns every weight round and makes it nine times as large.
    let bench = Bench::new(
        "epochs = 200\nbatch_size = 16\nwarmup_epochs = 0\noptimizer = \"sgd\"\nlearning_rate = 10.0\nweight_decay = 1.0",
    );
    let base = data::linear(1e-3);
    trainer::durable::write(&bench.path("base.onnx"), &base).unwrap();
    (bench, base)
}

#[test]
fn a_checkpoint_is_kept_while_the_last_good_weights_are_not() {
    let (bench, _) = out_of_bounds();
    std::fs::create_dir(bench.path("out.last-good.onnx")).unwrap();
    let output = bench.train("out", &["--checkpoint-every", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output);
    assert!(told.contains("learning_rate") && told.contains("out.last-good.onnx"), "{told}");
    assert!(bench.path("out.partial").is_dir(), "{told}");
}

#[test]
fn numbers_out_of_bounds_stop_the_run_and_leave_the_last_good_weights() {
    let (bench, base) = out_of_bounds();
    let output = bench.train("out", &["--checkpoint-every", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output);
    assert!(told.contains("epoch ") && told.contains("learning_rate"), "{told}");
    assert!(!bench.path("out").exists() && !bench.path("out.partial").exists(), "{told}");
    assert_eq!(std::fs::read(bench.path("base.onnx")).unwrap(), base, "the base is untouched");
    let good = std::fs::read(bench.path("out.last-good.onnx")).unwrap();
    assert!(good != base && good.len() == base.len());
    let good = trainer::onnx::Model::parse(good).unwrap();
    for tensor in good.initializers.values() {
        let trainer::onnx::Elements::Float(values) = &tensor.elements else { continue };
        assert!(values.iter().all(|v| v.is_finite() && v.abs() > 1e-2), "{values:?}");
    }
}

/// Trains a table of so many columns in the folder of the same key, two steps an epoch, and cancels
/// after a step. What it says, and the parameters it leaves.
fn cancelled_after(
    step: usize,
    columns: usize,
    place: &Place,
) -> (TrainError, HashMap<String, Vec<f32>>) {
    let model = starter(Kind::TableMlp, &[columns], Head::Classes(2), 3).unwrap();
    let model = Model::parse(model).unwrap();
    let inputs = Sizes::batch(2).inputs(&model).unwrap();
    let mut graph = Graph::load(model, &inputs, &Device::flex()).unwrap();
    let values = (0..4 * columns).map(|n| n as f32).collect();
    let targets = Targets::Classes { labels: vec![0, 1, 0, 1], count: 2 };
    let set = TrainingSet::new(vec![columns], values, targets, Groups::one("g", 4)).unwrap();
    let cancel = AtomicBool::new(step == 0);
    let task = Task {
        set: &set,
        recipe: &Recipe { batch_size: 2, ..Recipe::starter() },
        seed: 1,
        device: &Device::flex(),
        cancel: &cancel,
        checkpoints: Some((place, Key(vec![("seed".into(), "1".into())]))),
    };
    let stopped = train(&mut graph, &task, &mut |at| {
        cancel.store(at.step == step, Ordering::Relaxed);
    });
    (stopped.unwrap_err(), graph.parameters.values())
}

#[test]
fn a_run_that_went_on_in_the_middle_of_an_epoch_leaves_the_weights_of_the_last_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| Place {
        folder: dir.path().join(name),
        every: Duration::from_secs(60),
        foreign: Foreign::Refuse,
    };
    let (_, whole) = cancelled_after(2, 5, &place("whole"));
    let (stopped, left) = cancelled_after(3, 5, &place("kept"));
    assert!(matches!(stopped, TrainError::Cancelled(2)), "{stopped}");
    assert_eq!(left, whole);
    let (stopped, left) = cancelled_after(0, 5, &place("kept"));
    assert!(matches!(stopped, TrainError::Cancelled(2)), "{stopped}");
    assert_eq!(left, whole);
    assert_ne!(whole, cancelled_after(0, 5, &place("anew")).1, "an epoch changes them");
}

#[test]
fn a_state_that_does_not_fit_the_graph_is_refused_or_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kept");
    let refuse = Place { folder, every: Duration::from_secs(60), foreign: Foreign::Refuse };
    let replace = Place { foreign: Foreign::Replace, ..refuse.clone() };
    let cancelled = |columns, place| {
        let (error, _) = cancelled_after(1, columns, place);
        assert!(matches!(error, TrainError::Cancelled(1)), "{error}");
    };
    cancelled(5, &refuse);
    let error = trainer::chain::chain(&cancelled_after(1, 6, &refuse).0);
    assert!(error.contains("another graph"), "{error}");
    cancelled(6, &replace);
    let error = trainer::chain::chain(&cancelled_after(1, 5, &refuse).0);
    assert!(error.contains("another graph"), "the new state took the place: {error}");
}

/// A tiny file system over a folder, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this process may not mount and FLEETLOOP_NO_MOUNT says that this is known.
    fn over(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path);
        let output = mount.output().unwrap();
        if output.status.success() {
            return Some(Self(path.to_owned()));
        }
        assert!(
            std::env::var_os("FLEETLOOP_NO_MOUNT").is_some(),
            "cannot mount a file system, so a full disk is not tested; run as root, or set FLEETLOOP_NO_MOUNT to leave it out: {}",
            text(&output)
        );
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_stops_no_training_and_leaves_no_half_folder() {
    let bench = Bench::new("epochs = 2\nbatch_size = 16");
    let Some(disk) = SmallDisk::over(&bench.path("small"), "8k") else { return };
    let output = bench.train("small/out", &["--checkpoint-every", "0"]).output().unwrap();
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.matches("no checkpoint; training goes on without").count(), 1, "{told}");
    assert!(told.contains("free space on the disk") && told.contains("No space left"), "{told}");
    assert!(told.contains(r#""phase":"evaluate""#), "training was not stopped: {told}");
    let left: Vec<_> = std::fs::read_dir(&disk.0).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.iter().all(|path| *path == bench.path("small/out.partial")), "{left:?}");
    assert_eq!(std::fs::read(bench.path("base.onnx")).unwrap(), super::forward::varied());

    let mut larger = Command::new("mount");
    larger.args(["-o", "remount,size=16m"]).arg(&disk.0);
    assert!(larger.status().unwrap().success());
    done(&bench.train("small/out", &[]).output().unwrap());
    done(&bench.train("whole", &[]).output().unwrap());
    assert_eq!(bench.model("small/out"), bench.model("whole"));
}
