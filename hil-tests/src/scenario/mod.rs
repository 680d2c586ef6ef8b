//! What is done with a fleet, whole, on any rig.
//!
//! [`ALL`] is the list that `cargo xtask hil` runs from; each scenario's module says what it does
//! and what must come of it.

pub mod close_the_loop;
pub mod crowd;
pub mod faults;
pub mod flat_memory;
pub mod nothing_waits;
pub mod power_cut;

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::fleet::Assets;
use crate::progress::Progress;
use crate::rig::{Ability, Rig};

/// A scenario by name.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What its rig must be able to do.
    pub needs: &'static [Ability],
    /// How long it takes in each size, about, on two cores; none for one that is too long for every day.
    pub takes: Takes,
    /// Runs it. An error is a part that failed; figures that miss are in [`Outcome::missed`].
    pub run: fn(&Setting<'_>) -> Result<Outcome>,
}

/// How long a scenario takes, about, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    /// In its everyday size; none when it is not run every day.
    pub everyday_s: Option<u32>,
    /// In full.
    pub full_s: u32,
    /// For each unit of `--soak`, beside `base_s`.
    pub soak_unit_s: f32,
    /// Whatever the soak.
    pub base_s: u32,
}

impl Takes {
    /// Without a soak, the same every day.
    const fn always(seconds: u32) -> Self {
        Self { everyday_s: Some(seconds), full_s: seconds, soak_unit_s: 0.0, base_s: seconds }
    }

    /// In that size, with that soak.
    pub fn time(&self, size: Size, soak: Option<usize>) -> Duration {
        let seconds = match (soak, size, self.everyday_s) {
            (Some(n), ..) => self.base_s as f32 + self.soak_unit_s * n as f32,
            (None, Size::Everyday, Some(seconds)) => seconds as f32,
            (None, ..) => self.full_s as f32,
        };
        Duration::from_secs(seconds as u64)
    }
}

/// How much of a scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// All everyday scenarios end within ten minutes.
    Everyday,
    /// As it was asked for by name, or with all.
    Full,
}

/// Where and how a scenario runs.
pub struct Setting<'a> {
    /// Where.
    pub rig: &'a dyn Rig,
    /// What the source tree does not hold.
    pub assets: &'a Assets,
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// What is drawn is drawn from this.
    pub seed: u64,
    /// How much of it.
    pub size: Size,
    /// How long it goes on, where that can be chosen; the scenario says in which unit.
    pub soak: Option<usize>,
}

/// What came of a scenario.
pub struct Outcome {
    /// The figures.
    pub figures: Value,
    /// The figures for people.
    pub lines: String,
    /// What missed what it had to come to, in words.
    pub missed: Vec<String>,
}

/// Every scenario, in the order in which they are run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "power-cut-agent",
        about: "cuts the power of a device in every state; --soak says how often",
        needs: &[Ability::PowerCut],
        takes: Takes { everyday_s: Some(90), full_s: 90, soak_unit_s: 4.0, base_s: 10 },
        run: |setting| cut_power(setting, power_cut::Side::Agent),
    },
    Scenario {
        name: "power-cut-hub",
        about: "cuts the power of the hub in every state; --soak says how often",
        needs: &[Ability::PowerCut],
        takes: Takes { everyday_s: Some(90), full_s: 90, soak_unit_s: 4.0, base_s: 10 },
        run: |setting| cut_power(setting, power_cut::Side::Hub),
    },
    Scenario {
        name: "faults",
        about: "breaks links, disks, files and processes of a device and its hub, one by one",
        needs: &[],
        takes: Takes::always(120),
        run: faults,
    },
    Scenario {
        name: "faults-crowd",
        about: "crowds of silent connections, one kind after another, while devices work; --soak says \
                how many seconds each stays",
        needs: &[],
        takes: Takes { everyday_s: Some(60), full_s: 500, soak_unit_s: 8.0, base_s: 20 },
        run: silent_crowd,
    },
    Scenario {
        name: "faults-flood",
        about: "a device floods while others work; --soak says for how many seconds",
        needs: &[],
        takes: Takes { everyday_s: Some(15), full_s: 70, soak_unit_s: 1.0, base_s: 10 },
        run: flood,
    },
    Scenario {
        name: "nothing-waits",
        about: "frame latency while something disturbs, beside that of a quiet device; --soak says \
                how many rounds",
        needs: &[Ability::PowerCut, Ability::Halves],
        takes: Takes { everyday_s: None, full_s: 600, soak_unit_s: 600.0, base_s: 0 },
        run: nothing_waits,
    },
    Scenario {
        name: "flat-memory",
        about: "watches the memory of a device at work, with faults in between; --soak says how many \
                minutes",
        needs: &[],
        takes: Takes { everyday_s: None, full_s: 310, soak_unit_s: 60.0, base_s: 10 },
        run: flat_memory,
    },
    Scenario {
        name: "close-the-loop",
        about: "a fleet's world changes, it learns and recovers, killed on the way",
        needs: &[],
        takes: Takes::always(200),
        run: close_the_loop,
    },
];

/// The scenarios whose names begin with one of `wanted`; when none is wanted, those of every day.
///
/// # Errors
/// The word that no name begins with.
pub fn chosen(wanted: &[String]) -> Result<Vec<&'static Scenario>, String> {
    let fits = |scenario: &Scenario, word: &String| scenario.name.starts_with(word.as_str());
    if let Some(word) = wanted.iter().find(|word| !ALL.iter().any(|one| fits(one, word))) {
        return Err(word.clone());
    }
    let is_chosen = |one: &&Scenario| {
        wanted.iter().any(|word| fits(one, word))
            || wanted.is_empty() && one.takes.everyday_s.is_some()
    };
    Ok(ALL.iter().filter(is_chosen).collect())
}

fn cut_power(setting: &Setting<'_>, side: power_cut::Side) -> Result<Outcome> {
    let small = power_cut::Plan::small(side, setting.seed);
    let plan = power_cut::Plan { cuts: setting.soak.unwrap_or(small.cuts), ..small };
    let figures = power_cut::run(setting.rig, plan, setting.assets, setting.progress)?;
    Ok(Outcome { lines: figures.lines(), missed: figures.missed(), figures: to_json(&figures)? })
}

fn faults(setting: &Setting<'_>) -> Result<Outcome> {
    let figures = faults::run(setting.rig, setting.assets, setting.progress)?;
    Ok(Outcome { lines: figures.to_string(), missed: Vec::new(), figures: to_json(&figures)? })
}

/// How long each crowd stays every day.
const EVERYDAY_CROWD: Duration = Duration::from_secs(5);

fn crowd_plan(setting: &Setting<'_>) -> crowd::Plan {
    let full = crowd::Plan::full();
    let usual = match setting.size {
        Size::Everyday => EVERYDAY_CROWD,
        Size::Full => full.time,
    };
    let time = setting.soak.map_or(usual, |seconds| Duration::from_secs(seconds as u64));
    crowd::Plan { time, ..full }
}

fn silent_crowd(setting: &Setting<'_>) -> Result<Outcome> {
    let figures = crowd::run(setting.rig, crowd_plan(setting), setting.assets, setting.progress)?;
    Ok(Outcome { lines: figures.to_string(), missed: Vec::new(), figures: to_json(&figures)? })
}

fn flood(setting: &Setting<'_>) -> Result<Outcome> {
    let plan = crowd::Plan { devices: 4, ..crowd_plan(setting) };
    let figures = crowd::flood(setting.rig, plan, setting.assets, setting.progress)?;
    Ok(Outcome { lines: figures.to_string(), missed: Vec::new(), figures: to_json(&figures)? })
}

/// Figures only: what they must reach is judged where it is known how quiet the machine was.
fn nothing_waits(setting: &Setting<'_>) -> Result<Outcome> {
    let usual = nothing_waits::Plan::default();
    let rounds = setting.soak.map_or(Ok(usual.rounds), u32::try_from)?;
    let plan = nothing_waits::Plan { rounds, ..usual };
    let figures = nothing_waits::run(setting.rig, plan, setting.assets, setting.progress)?;
    Ok(Outcome { lines: figures.to_string(), missed: Vec::new(), figures: to_json(&figures)? })
}

fn flat_memory(setting: &Setting<'_>) -> Result<Outcome> {
    let plan = flat_memory::Plan::of_minutes(setting.soak.unwrap_or(5));
    let figures = flat_memory::run(setting.rig, plan, setting.assets, setting.progress)?;
    let grown = "memory grew by more than it may".to_owned();
    let missed = if figures.trend.is_flat() { Vec::new() } else { vec![grown] };
    Ok(Outcome { lines: figures.to_string(), missed, figures: to_json(&figures)? })
}

fn close_the_loop(setting: &Setting<'_>) -> Result<Outcome> {
    // With the seed that its limits were made for.
    let plan = close_the_loop::Plan { kills: true, ..close_the_loop::Plan::small() };
    let limits = plan.limits;
    let done = close_the_loop::run(setting.rig, plan, setting.assets, setting.progress)?;
    Ok(Outcome {
        lines: close_the_loop::table::render(&done.figures, &limits),
        missed: done.figures.missed(&limits),
        figures: to_json(&done.figures)?,
    })
}

fn to_json(figures: &impl Serialize) -> Result<Value> {
    Ok(serde_json::to_value(figures)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str]) -> Result<Vec<&'static str>, String> {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        Ok(chosen(&wanted)?.iter().map(|scenario| scenario.name).collect())
    }

    #[test]
    fn what_runs_every_day_ends_within_ten_minutes() {
        let everyday = chosen(&[]).unwrap();
        let time: Duration = everyday.iter().map(|one| one.takes.time(Size::Everyday, None)).sum();
        assert!(time <= Duration::from_secs(600), "{time:?}");
        let soaked = ALL[0].takes.time(Size::Full, Some(200));
        assert!(soaked > ALL[0].takes.time(Size::Full, None), "more cuts take longer");
    }

    #[test]
    fn a_name_or_its_beginning_chooses_and_none_chooses_those_of_every_day() {
        assert_eq!(names(&["power-cut-hub"]).unwrap(), ["power-cut-hub"]);
        assert_eq!(names(&["power"]).unwrap(), ["power-cut-agent", "power-cut-hub"]);
        assert!(!names(&[]).unwrap().contains(&"flat-memory"));
        assert_eq!(names(&["flat"]).unwrap(), ["flat-memory"]);
        assert_eq!(names(&["power", "nonsense"]).unwrap_err(), "nonsense");
    }
}
