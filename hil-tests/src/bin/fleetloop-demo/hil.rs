//! `cargo xtask hil`: scenarios against the built programs, on this machine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use fleetloop_protocol::keys::random_bytes;
use hil_tests::files;
use hil_tests::fleet::Assets;
use hil_tests::progress::{Progress, tell};
use hil_tests::rig::{Rig as _, ThisMachine};
use hil_tests::scenario::{self, Scenario, Setting, Size};
use serde_json::{Map, Value};

use crate::GRACE;
use crate::folder::Folder;
use crate::interrupt::{Interrupt, Running};
use crate::watcher;

#[derive(clap::Args)]
pub struct Options {
    /// The scenarios to run, or the beginnings of their names; when none is named, those of every day,
    /// shortened, which end within ten minutes
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Run every scenario in full
    #[arg(long, conflicts_with = "scenarios")]
    all: bool,
    /// How long scenarios that can go on do so; each says in which unit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    soak: Option<u32>,
    /// Draw what is drawn from this, as a run before did; a fresh one when none is given
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Write the figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep all files and logs in this folder, which must not exist yet
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// The scenarios, for the help.
pub fn list() -> String {
    let mut text = String::from("Scenarios:\n");
    for scenario in scenario::ALL {
        let full = about(scenario.takes.time(Size::Full, None));
        let everyday = match scenario.takes.everyday_s {
            Some(_) => about(scenario.takes.time(Size::Everyday, None)),
            None => "not every day".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:18} {}", scenario.name, scenario.about);
        let _ = writeln!(text, "  {:18} takes {full}; every day: {everyday}", "");
    }
    text.push_str(
        "\nExit status: 0 when every scenario came out as it must or was skipped, 1 when one did \
         not, 130 when interrupted.",
    );
    text
}

/// Runs what was asked for; whether all of it came out as it must.
pub fn run(options: &Options) -> Result<bool> {
    let chosen = if options.all {
        scenario::ALL.iter().collect()
    } else {
        scenario::chosen(&options.scenarios)
            .map_err(|word| anyhow!("there is no scenario '{word}'; '--help' lists them"))?
    };
    let size =
        if options.all || !options.scenarios.is_empty() { Size::Full } else { Size::Everyday };
    let soak = options.soak.map(|n| n as usize);
    let time = |scenario: &&Scenario| scenario.takes.time(size, soak);
    tell("what is run, and how long it takes on two cores:");
    for scenario in &chosen {
        tell(&format!("  {:18} {}", scenario.name, about(time(scenario))));
    }
    tell(&format!("  {:18} {}", "in all", about(chosen.iter().map(time).sum())));
    let seed = match options.seed {
        Some(seed) => seed,
        // Short enough to be typed.
        None => u64::from(u32::from_le_bytes(random_bytes().context("cannot draw a seed")?)),
    };
    let folder = Folder::new(options.folder.as_deref())?;
    let demo = std::env::current_exe().context("cannot tell where this program lies")?;
    let running = Running::default();
    let interrupt = Interrupt::listen(running.clone())?;
    let progress = watcher();
    let mut all = Vec::new();
    for (at, scenario) in chosen.iter().enumerate() {
        let left = about(chosen[at..].iter().map(time).sum());
        tell(&format!("\n==> {}: {} (with this {left} are left)", scenario.name, scenario.about));
        let rig = Arc::new(ThisMachine::new(&folder.path().join(scenario.name), &demo)?);
        running.set(Arc::clone(&rig), folder.removed_at_end());
        let verdict = one(scenario, &rig, seed, (size, soak), progress.as_ref());
        interrupt.wait_if_interrupted();
        rig.stop_all(GRACE);
        all.push((scenario.name, verdict));
    }
    let good = close(&all, seed);
    if let Some(path) = &options.json {
        write(path, seed, all)?;
    }
    if good {
        folder.close();
    } else {
        tell(&format!("files and logs stay in {}", folder.path().display()));
    }
    Ok(good)
}

/// A time for people.
fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..=90 => format!("about {seconds} s"),
        seconds => format!("about {} min", seconds.div_ceil(60)),
    }
}

/// How a scenario ended.
enum Verdict {
    Passed(Value),
    Missed(Value, usize),
    Skipped(String),
    Failed(String),
}

fn one(
    scenario: &Scenario,
    rig: &Arc<ThisMachine>,
    seed: u64,
    (size, soak): (Size, Option<usize>),
    progress: &dyn Progress,
) -> Verdict {
    if let Some(why) = scenario.needs.iter().find_map(|ability| rig.lacks(*ability)) {
        return Verdict::Skipped(why);
    }
    let assets = Assets::of_this_checkout();
    let setting = Setting { rig: rig.as_ref(), assets: &assets, progress, seed, size, soak };
    let outcome = (scenario.run)(&setting);
    progress.done();
    match outcome {
        Ok(outcome) => {
            tell(outcome.lines.trim_end());
            for miss in &outcome.missed {
                tell(&format!("missed: {miss}"));
            }
            match outcome.missed.len() {
                0 => Verdict::Passed(outcome.figures),
                missed => Verdict::Missed(outcome.figures, missed),
            }
        }
        Err(error) => {
            tell(&format!("error: {error:#}"));
            Verdict::Failed(format!("{error:#}"))
        }
    }
}

/// Tells all scenarios again, one a line; whether none failed.
fn close(all: &[(&str, Verdict)], seed: u64) -> bool {
    tell("");
    for (name, verdict) in all {
        tell(&match verdict {
            Verdict::Passed(_) => format!("ok       {name}"),
            Verdict::Skipped(why) => format!("skipped  {name}: {why}"),
            Verdict::Missed(_, count) => format!("FAILED   {name}: {count} figures missed"),
            Verdict::Failed(_) => format!("FAILED   {name}"),
        });
    }
    let is_bad = |verdict: &Verdict| matches!(verdict, Verdict::Missed(..) | Verdict::Failed(_));
    let good = !all.iter().any(|(_, verdict)| is_bad(verdict));
    if !good {
        tell(&format!("--seed {seed} replays this"));
    }
    good
}

fn write(path: &Path, seed: u64, all: Vec<(&str, Verdict)>) -> Result<()> {
    let mut scenarios = Map::new();
    for (name, verdict) in all {
        let (word, figures) = match verdict {
            Verdict::Passed(figures) => ("passed", figures),
            Verdict::Missed(figures, _) => ("missed", figures),
            Verdict::Skipped(why) => ("skipped", Value::String(why)),
            Verdict::Failed(why) => ("failed", Value::String(why)),
        };
        scenarios.insert(name.to_owned(), serde_json::json!({ "verdict": word, "told": figures }));
    }
    let document = serde_json::json!({ "seed": seed, "scenarios": scenarios });
    files::replace(path, (serde_json::to_string_pretty(&document)? + "\n").as_bytes())
}
