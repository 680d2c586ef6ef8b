//! Whether what the model meets on this device is what it met before.
//!
//! [`Drift`] decides and does nothing else: it takes the sketch of each telemetry window and keeps the
//! last [`WINDOWS`] of them that saw a frame. Together they are compared with the reference of the
//! model's bundle; where there is none, with the first [`FIRST_FRAMES`] frames and more that the model
//! answered on this device, which are kept in `first_frames.json` so that a restart does not begin
//! anew. Another model begins with nothing, for sketches of two models do not add up.
//!
//! [`Driver`] carries it out: it writes that file once a model, shows the status, and logs a change of
//! the verdict, once. Memory: 61 sketches of at most 9 KB.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::drift::{self, Against, Verdict};
use fleetloop_protocol::sketch::Sketch;
use fleetloop_protocol::telemetry::Telemetry;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::durable;
use crate::infer::ModelInfo;

/// Windows that are compared: an hour of the usual ones.
pub const WINDOWS: usize = 60;

/// Frames that stand in for a reference, at least; the window that reaches them is the last.
pub const FIRST_FRAMES: u64 = 1000;

const FILE: &str = "first_frames.json";
const FILE_BYTES: u64 = 64 << 10;

/// What a model met first on this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstFrames {
    /// The model.
    model: BundleDigest,
    /// At least [`FIRST_FRAMES`] frames.
    sketch: Sketch,
}

/// How the last hour compares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftStatus {
    /// The model it is about.
    pub model: BundleDigest,
    /// What is compared with.
    pub against: Against,
    /// What came of it.
    pub drift: drift::Drift,
}

/// What a window led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How things stand.
    pub status: DriftStatus,
    /// The verdict before, where it was another one.
    pub was: Option<Verdict>,
    /// What is to be kept over a restart.
    pub keep: Option<FirstFrames>,
}

/// The pure part.
#[derive(Debug, Default)]
pub struct Drift {
    kept: Option<FirstFrames>,
    model: Option<BundleDigest>,
    against: Against,
    /// What is compared with, or is still being gathered for that.
    reference: Sketch,
    recent: VecDeque<Sketch>,
    verdict: Verdict,
}

impl Drift {
    /// Nothing is known but what was kept.
    pub fn new(kept: Option<FirstFrames>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Takes a window of `model` in.
    pub fn take(&mut self, model: &ModelInfo, window: Sketch) -> Outcome {
        if self.model != Some(model.digest) {
            self.begin(model);
        }
        let mut keep = None;
        if self.against == Against::Nothing {
            self.reference.merge(&window);
            if self.reference.frames() >= FIRST_FRAMES {
                self.against = Against::First;
                keep = Some(FirstFrames { model: model.digest, sketch: self.reference.clone() });
                self.kept.clone_from(&keep);
            }
        } else if window.frames() > 0 {
            self.recent.truncate(WINDOWS - 1);
            self.recent.push_front(window);
        }
        let drift = self.compare();
        let was = (drift.verdict != self.verdict).then_some(self.verdict);
        self.verdict = drift.verdict;
        let status = DriftStatus { model: model.digest, against: self.against, drift };
        Outcome { status, was, keep }
    }

    fn begin(&mut self, model: &ModelInfo) {
        let kept = self.kept.take().filter(|kept| kept.model == model.digest);
        (self.against, self.reference) = match (&model.reference, &kept) {
            (Some(reference), _) => (Against::Bundle, reference.sketch().clone()),
            (None, Some(kept)) => (Against::First, kept.sketch.clone()),
            (None, None) => (Against::Nothing, Sketch::default()),
        };
        self.kept = kept;
        self.model = Some(model.digest);
        self.recent.clear();
        self.verdict = Verdict::Unknown;
    }

    fn compare(&self) -> drift::Drift {
        let mut recent = Sketch::default();
        self.recent.iter().for_each(|window| recent.merge(window));
        drift::compare(&self.reference, &recent)
    }
}

/// The thin part; one owner.
#[derive(Debug)]
pub struct Driver {
    drift: Drift,
    path: PathBuf,
    shown: watch::Sender<Option<DriftStatus>>,
}

impl Driver {
    /// The driver over what is kept in `data_dir`, and where it shows how things stand. Blocks on
    /// the disk.
    pub fn open(data_dir: &Path) -> (Self, watch::Receiver<Option<DriftStatus>>) {
        let path = data_dir.join(FILE);
        let (shown, receiver) = watch::channel(None);
        (Self { drift: Drift::new(read(&path)), path, shown }, receiver)
    }

    /// Takes a window in. `model` is the one at work; a window of another, which was just replaced,
    /// is passed over. Must be called within a tokio runtime.
    pub fn window(&mut self, model: Option<&ModelInfo>, telemetry: &Telemetry) {
        let Some(model) = model.filter(|model| telemetry.model == Some(model.digest)) else {
            return;
        };
        let Outcome { status, was, keep } = self.drift.take(model, telemetry.sketch.clone());
        if let Some(was) = was {
            tell(model, &status, was);
        }
        if let Some(keep) = keep {
            let path = self.path.clone();
            // Not waited for: without it the next start gathers first frames again.
            drop(tokio::task::spawn_blocking(move || write(&path, &keep)));
        }
        self.shown.send_replace(Some(status));
    }
}

fn tell(model: &ModelInfo, status: &DriftStatus, was: Verdict) {
    let (name, version, drift) = (&model.name, model.version, &status.drift);
    let (verdict, was) = (drift.verdict.as_str(), was.as_str());
    if drift.verdict >= Verdict::Shifting {
        tracing::warn!(model = %name, version, verdict, was, %status, "the input or the answers drift");
    } else {
        tracing::info!(model = %name, version, verdict, was, %status, "drift was looked at");
    }
}

/// A file that cannot be used is as good as none.
fn read(path: &Path) -> Option<FirstFrames> {
    let bytes = match durable::read(path, FILE_BYTES) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::warn!(%error, "first frames are gathered anew");
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "first frames are gathered anew");
        })
        .ok()
}

fn write(path: &Path, first: &FirstFrames) {
    let bytes = match serde_json::to_vec(first) {
        Ok(bytes) => bytes,
        Err(error) => return tracing::error!(%error, "first frames are not kept"),
    };
    if let Err(error) = durable::write(path, &bytes) {
        tracing::warn!(%error, "first frames are not kept; a restart gathers them again");
    }
}

impl fmt::Display for DriftStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let drift = &self.drift;
        let verdict = match drift.verdict {
            Verdict::Unknown => "too few frames to tell",
            known => known.as_str(),
        };
        write!(f, "{verdict}: {} frames against ", drift.recent_frames)?;
        match self.against {
            Against::Bundle => write!(f, "the bundle's reference of {}", drift.reference_frames)?,
            Against::First => write!(f, "the first {} of this model", drift.reference_frames)?,
            Against::Nothing => {
                let have = drift.reference_frames;
                write!(f, "nothing yet, {have} of {FIRST_FRAMES} first frames")?;
            }
        }
        let mut changed = String::new();
        for finding in drift.features.iter().filter(|f| f.verdict >= Verdict::Shifting) {
            write!(changed, "; {finding}")?;
        }
        f.write_str(&changed)
    }
}

#[cfg(test)]
mod tests {
    use fleetloop_models::reference::Reference;
    use fleetloop_protocol::Digest;
    use fleetloop_protocol::sketch::Observation;

    use super::*;

    /// Frames of one source: deterministic, spread around `light`.
    fn window(frames: usize, light: f32) -> Sketch {
        let mut sketch = Sketch::default();
        for n in 0..frames {
            let spread = (n * 37 % 100) as f32 / 100.0;
            sketch.add(&Observation {
                classes: 3,
                class: n % 3,
                confidence: 0.5 + spread / 2.0,
                brightness: light + spread / 5.0,
                contrast: 0.2 + spread / 10.0,
            });
        }
        sketch
    }

    fn model(name: &str, reference: Option<Sketch>) -> ModelInfo {
        ModelInfo {
            digest: BundleDigest(Digest::of(name.as_bytes())),
            name: name.into(),
            version: 1,
            labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
            reference: reference.map(|sketch| Reference::new(sketch).unwrap()),
        }
    }

    #[test]
    fn darkness_is_told_once_when_it_comes_and_once_when_it_goes() {
        let model = model("m", Some(window(2000, 0.5)));
        let mut drift = Drift::new(None);
        let changes: Vec<_> = (0..300)
            .filter_map(|minute| {
                let light = if (100..150).contains(&minute) { 0.1 } else { 0.5 };
                let outcome = drift.take(&model, window(600, light));
                assert_eq!(outcome.status.against, Against::Bundle);
                outcome.was.map(|was| (minute, was, outcome.status.drift.verdict))
            })
            .collect();
        let began = changes.iter().filter(|(_, _, is)| *is == Verdict::Drifted);
        let began: Vec<u32> = began.map(|(minute, ..)| *minute).collect();
        assert!(began.len() == 1 && (100..110).contains(&began[0]), "{changes:?}");
        // At most shifting before and after, and steady when the dark has left the hour.
        assert!(changes.len() <= 5, "{changes:?}");
        assert!(changes[0].0 == 0 && changes[0].2 == Verdict::Steady, "{changes:?}");
        let (minute, _, is) = changes[changes.len() - 1];
        assert!(is == Verdict::Steady && (160..=210).contains(&minute), "{changes:?}");
    }

    #[test]
    fn memory_is_bounded_by_an_hour_of_windows() {
        let model = model("m", Some(window(2000, 0.5)));
        let mut drift = Drift::new(None);
        let recent =
            (0..200).map(|_| drift.take(&model, window(10, 0.5)).status.drift.recent_frames);
        assert_eq!(recent.last(), Some(10 * WINDOWS as u64));
        drift.take(&model, Sketch::default());
        assert_eq!(drift.recent.len(), WINDOWS, "a window without a frame pushes none out");
    }

    #[test]
    fn without_a_reference_the_first_frames_stand_in_and_survive_a_restart() {
        let model = model("m", None);
        let mut drift = Drift::new(None);
        let first = drift.take(&model, window(600, 0.5));
        assert_eq!((first.status.against, first.keep.is_some()), (Against::Nothing, false));
        let second = drift.take(&model, window(600, 0.5));
        assert_eq!(second.status.against, Against::First);
        let kept = second.keep.unwrap();
        assert_eq!((kept.sketch.frames(), second.status.drift.recent_frames), (1200, 0));
        let read = serde_json::from_slice(&serde_json::to_vec(&kept).unwrap()).unwrap();
        let mut again = Drift::new(Some(read));
        let dark = again.take(&model, window(600, 0.1));
        assert_eq!(dark.status.drift.verdict, Verdict::Drifted);
        assert_eq!((dark.was, dark.keep), (Some(Verdict::Unknown), None));
    }

    #[test]
    fn another_model_begins_with_nothing() {
        let mut drift = Drift::new(None);
        for _ in 0..3 {
            drift.take(&model("old", None), window(1000, 0.5));
        }
        let swapped = drift.take(&model("new", None), window(400, 0.1));
        assert_eq!(swapped.status.against, Against::Nothing);
        assert_eq!(swapped.status.drift.verdict, Verdict::Unknown);
        assert_eq!(swapped.status.drift.recent_frames, 0);
    }

    #[tokio::test]
    async fn what_is_shown_names_what_moved_and_a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        durable::write(&dir.path().join(FILE), b"{").unwrap();
        let (mut driver, shown) = Driver::open(dir.path());
        let model = model("m", Some(window(2000, 0.5)));
        let telemetry = Telemetry {
            model: Some(model.digest),
            sketch: window(600, 0.1),
            ..Telemetry::default()
        };
        driver.window(None, &telemetry);
        assert_eq!(*shown.borrow(), None);
        driver.window(Some(&model), &telemetry);
        let status = shown.borrow().clone().unwrap();
        let text = status.to_string();
        assert!(text.contains("drifted: 600 frames"), "{text}");
        assert!(text.contains("; brightness drifted (PSI"), "{text}");
        assert!(!text.contains("contrast"), "{text}");
        let json = serde_json::to_string(&status).unwrap();
        let read: DriftStatus = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (read.model, read.against, read.to_string()),
            (model.digest, Against::Bundle, text)
        );
    }

    #[test]
    fn first_frames_are_kept_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let first = FirstFrames { model: model("m", None).digest, sketch: window(1000, 0.5) };
        write(&path, &first);
        assert_eq!(read(&path), Some(first));
    }
}
