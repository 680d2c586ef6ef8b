//! `edge-agent check`: whether this device can do its work, and how much of it.
//!
//! Looks at the runtime's library, the model and its golden cases, the source, and measures the
//! whole road from reading a frame to the decision, closed loop, for about two seconds. Changes
//! nothing and may run beside the agent (then the capacity is what is left).

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetloop_models::bundle::Bundle;
use fleetloop_models::session::{Runtime, Threads};
use fleetloop_protocol::{ClockState, UnixMillis};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::chain::chain;
use crate::clock::Clock;
use crate::config::Config;
use crate::decide::{Decide, Rules};
use crate::durable;
use crate::frames::Arrived;
use crate::infer::{self, Answer, Proven, Proving, Sink as _};
use crate::proof::{Cancel, Failure, Proof, Task};
use crate::results::Results;
use crate::source::{self, Source};
use crate::telemetry::Meter;
use crate::update::{self, Bundles};

/// How long the capacity is measured.
pub const MEASURE: Duration = Duration::from_secs(2);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found, or what is wrong and what to do.
    pub detail: String,
}

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// What was looked at.
    pub checks: Vec<Item>,
    /// Frames a second from reading to decision; none without a model or a source.
    pub capacity_frames_per_s: Option<f64>,
    /// The largest difference of a golden case's logit.
    pub golden_largest_difference: Option<f32>,
}

impl Report {
    fn add(&mut self, name: &str, outcome: Result<String, String>) -> bool {
        let ok = outcome.is_ok();
        let detail = outcome.unwrap_or_else(|detail| detail);
        self.checks.push(Item { name: name.into(), ok, detail });
        ok
    }
}

/// Checks everything that `config` names; the model is `bundle` if given, the installed one
/// otherwise. A model is tried in a child first, if `proving` says so. Blocks for some seconds.
pub fn check(config: &Config, bundle: Option<&Path>, proving: &Proving) -> Report {
    let mut report = Report::default();
    report.add("data folder", data_folder(&config.data_dir));
    let runtime = library(config, &mut report);
    let folder = bundle;
    let bundle = model(config, folder, &mut report);
    let proven = match (runtime, bundle) {
        (Some(runtime), Some(bundle))
            if tried(config, folder, &runtime, &bundle, proving, &mut report) =>
        {
            golden(config, &runtime, &bundle, &mut report)
        }
        _ => None,
    };
    let mut source = open_source(config, &mut report);
    if let (Some(mut proven), Some(source)) = (proven, source.as_mut()) {
        match measure(config, &mut proven, source.as_mut(), MEASURE) {
            Ok(capacity) => {
                let enough = capacity >= config.source.rate_hz();
                let text =
                    format!("{capacity:.0} frames/s, the source gives {}", config.source.rate_hz());
                report.capacity_frames_per_s = Some(capacity);
                let slow = format!("{text}; lower source.rate_hz or use a smaller model");
                report.add("capacity", if enough { Ok(text) } else { Err(slow) });
            }
            Err(detail) => drop(report.add("capacity", Err(detail))),
        }
    }
    report.ok = report.checks.iter().all(|item| item.ok);
    report
}

/// Whether the agent can keep anything: a file is made there and removed again.
fn data_folder(folder: &Path) -> Result<String, String> {
    if !folder.exists() {
        return Ok(format!("{} is not there yet; 'edge-agent enroll' makes it", folder.display()));
    }
    let attempt =
        tempfile::Builder::new().prefix(".check-").tempfile_in(folder).and_then(|mut file| {
            std::io::Write::write_all(&mut file, &[0; 4096])?;
            file.as_file().sync_all()
        });
    match attempt {
        Ok(()) => {
            let free = durable::free_bytes(folder)
                .map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MB", bytes / 1_000_000));
            Ok(format!("{} can be written, {free} free", folder.display()))
        }
        Err(error) => Err(format!(
            "cannot write in {}: {error}; nothing would be kept there: mount it writable, make room, \
             or run as the folder's owner",
            folder.display()
        )),
    }
}

fn library(config: &Config, report: &mut Report) -> Option<Runtime> {
    let loaded = Runtime::load(config.inference.library.as_deref());
    let found =
        |runtime: &Runtime| format!("{} in {}", runtime.version(), runtime.library().display());
    report.add("library", loaded.as_ref().map(found).map_err(|error| chain(error)));
    loaded.ok()
}

fn model(config: &Config, dir: Option<&Path>, report: &mut Report) -> Option<Bundle> {
    let opened = match dir {
        Some(dir) => Bundle::open(dir, None).map(Some).map_err(|error| chain(&error)),
        None => update::current_bundle(&config.data_dir).map_err(|error| chain(&error)),
    };
    let found = |bundle: &Option<Bundle>| match bundle {
        Some(bundle) => {
            let manifest = bundle.manifest();
            let digest = bundle.digest().0.short();
            format!(
                "{} {} ({digest}), {} labels",
                manifest.name,
                manifest.version,
                manifest.labels.len()
            )
        }
        None => "no model yet; a rollout brings one".to_owned(),
    };
    report.add("model", opened.as_ref().map(found).map_err(Clone::clone));
    opened.ok().flatten()
}

/// Whether the model may be loaded here: it came through its trial in a child.
fn tried(
    config: &Config,
    folder: Option<&Path>,
    runtime: &Runtime,
    bundle: &Bundle,
    proving: &Proving,
    report: &mut Report,
) -> bool {
    let Proving::InChild(prover) = proving else { return true };
    let digest = bundle.digest();
    let installed = Bundles::new(&config.data_dir).folder(digest);
    let folder = folder.map_or(installed, Path::to_owned);
    let library = runtime.library().to_owned();
    let task = Task { bundle: digest, folder, library, frames: Vec::new() };
    let outcome = match prover.prove(task, &Cancel::default()) {
        Ok(_) => Ok("loaded and tried in a child process within its limits".to_owned()),
        Err(Failure::Refused(reason) | Failure::Untried(reason)) => Err(reason),
        Err(Failure::Cancelled) => Err("cancelled".to_owned()),
    };
    report.add("trial", outcome)
}

fn golden(
    config: &Config,
    runtime: &Runtime,
    bundle: &Bundle,
    report: &mut Report,
) -> Option<Proven> {
    let threads = Threads(usize::from(config.inference.threads));
    let proven = infer::open(runtime, threads, bundle, &Proof::unsafe_without(), None);
    let found = |proven: &Proven| {
        let golden = proven.report();
        format!(
            "{} cases, off by at most {:.1e} (allowed {:.1e})",
            golden.cases, golden.largest_difference, golden.tolerance
        )
    };
    report.add("golden cases", proven.as_ref().map(found).map_err(|error| chain(error)));
    let proven = proven.ok()?;
    report.golden_largest_difference = Some(proven.report().largest_difference);
    Some(proven)
}

fn open_source(config: &Config, report: &mut Report) -> Option<Box<dyn Source>> {
    let mut opened = source::open(&config.source).and_then(|mut source| {
        source.next_frame()?;
        Ok(source)
    });
    let found = |source: &mut Box<dyn Source>| source.describe();
    report.add("source", opened.as_mut().map(found).map_err(|error| chain(error)));
    opened.ok()
}

/// Frames a second through everything that happens to a frame but the outbox's disk.
fn measure(
    config: &Config,
    proven: &mut Proven,
    source: &mut dyn Source,
    span: Duration,
) -> Result<f64, String> {
    // The clock of a measurement stands still; the time is taken outside.
    let (clock, _) = Clock::manual(UnixMillis(0));
    let (results, _mqtt) = Results::new(config.results.mqtt_per_second);
    let meter = Arc::new(Meter::new(Duration::ZERO));
    let rules = Arc::new(Rules::of(config));
    let (mut decide, _sampler) = Decide::new(clock, meter, results, watch::channel(rules).1, 0);
    let model = proven.info().clone();
    let mut frames = 0u64;
    let start = Instant::now();
    while start.elapsed() < span {
        let frame = source.next_frame().map_err(|error| chain(&error))?;
        let classification = proven.session().classify(&frame).map_err(|error| chain(&error))?;
        let frame = Box::new(Arrived {
            frame,
            number: frames,
            due: Duration::ZERO,
            captured_at: UnixMillis(0),
            clock: ClockState::Unsynced,
        });
        let latency = Duration::ZERO;
        decide.answered(Answer { frame, model: model.clone(), classification, latency });
        frames += 1;
    }
    Ok(frames as f64 / start.elapsed().as_secs_f64())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.checks {
            let mark = if item.ok { "ok  " } else { "FAIL" };
            writeln!(f, "{mark} {:<13} {}", item.name, item.detail)?;
        }
        f.write_str(if self.ok { "all is well" } else { "something is wrong, see FAIL above" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, images: &Path, more: &str) -> Config {
        let text = format!(
            "data_dir = '{}'\n[source]\nkind = 'idx'\nimages = '{}'\nrate_hz = 5\n{more}",
            dir.display(),
            images.display()
        );
        Config::parse(&text, Path::new("")).unwrap()
    }

    fn images(dir: &Path) -> std::path::PathBuf {
        let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28];
        bytes.resize(16 + 2 * 784, 99);
        let path = dir.join("images");
        crate::durable::write(&path, &bytes).unwrap();
        path
    }

    fn item<'a>(report: &'a Report, name: &str) -> &'a Item {
        report.checks.iter().find(|item| item.name == name).unwrap()
    }

    #[test]
    fn a_working_device_passes_and_its_capacity_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data/linear-1");
        let config = config(dir.path(), &images(dir.path()), "");
        let report = check(&config, Some(&bundle), &Proving::UnsafeNowhere);
        assert!(report.ok, "{report}");
        assert!(report.capacity_frames_per_s.unwrap() > 5.0);
        assert!(report.golden_largest_difference.unwrap() < 1e-3);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap().checks, report.checks);
    }

    #[test]
    fn a_data_folder_that_cannot_be_written_is_no_device_where_all_is_well() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data/linear-1");
        // Not even root writes there.
        let config = config(Path::new("/proc"), &images(dir.path()), "");
        let report = check(&config, Some(&bundle), &Proving::UnsafeNowhere);
        assert!(!report.ok, "{report}");
        let detail = &item(&report, "data folder").detail;
        assert!(
            detail.contains("cannot write in /proc") && detail.contains("writable"),
            "{detail}"
        );
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(
            dir.path(),
            Path::new("/no/images"),
            "[inference]\nlibrary = '/no/libonnxruntime.so'\n",
        );
        let report = check(&config, None, &Proving::UnsafeNowhere);
        assert!(!report.ok && report.capacity_frames_per_s.is_none());
        assert!(item(&report, "library").detail.contains("cargo xtask setup"), "{report}");
        assert!(item(&report, "source").detail.contains("/no/images"), "{report}");
        assert!(item(&report, "model").ok, "no model yet is no fault: {report}");
    }
}
