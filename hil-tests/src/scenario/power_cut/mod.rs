//! The power goes, again and again, at moments drawn from a seed, and nothing is lost.
//!
//! ```text
//!  a hub, a device that sends every frame, rollouts without end
//!    └─ again and again: enter a state → cut one side's power in it → restore → it works again
//!  drain → both end → the device's word (its log) against the hub's disk
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`draw`] | states and moments, from a seed |
//! | `world` | the fleet and its volumes |
//! | `rollouts` | models that are swapped the whole time |
//! | `cutting` | entering a state, cutting, coming back |
//! | [`ledger`] | what the device said it had done |
//! | [`disk`] | what the hub has, verified piece by piece |
//! | [`judge`] | the one against the other |
//! | `figures` | what was counted |
//!
//! What must come of it: every sample that the device acknowledged is stored once, with its payload;
//! so is every sample with a receipt; the chain of headers has no undeclared hole; the outbox never
//! began anew; a model answered after every cut. Each of the device's own words counts from the
//! moment it is in its log, which lies on no volume.

mod cutting;
pub mod disk;
pub mod draw;
mod figures;
pub mod judge;
pub mod ledger;
mod rollouts;
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::fleet::Assets;
use crate::progress::Progress;
use crate::rig::Rig;
use cutting::Met;
use disk::HubDisk;
use draw::{Cut, Cuts};
pub use figures::Figures;
use figures::Spread;
use world::World;

/// How often a state is aimed at again when a cut came too late for it.
const AIMS: usize = 20;

/// How many parts a run tells of.
const STAGES: usize = 3;

/// Whose power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The device's.
    Agent,
    /// The hub's.
    Hub,
}

impl Side {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Agent => "the device",
            Self::Hub => "the hub",
        }
    }
}

/// A run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Whose power is cut.
    pub side: Side,
    /// How often, at least: a cut that came too late for its state is made again.
    pub cuts: usize,
    /// Where the moments are drawn from.
    pub seed: u64,
    /// Frames a second; each becomes a sample.
    pub rate_hz: f64,
}

impl Plan {
    /// What continuous integration runs.
    pub const fn small(side: Side, seed: u64) -> Self {
        Self { side, cuts: 20, seed, rate_hz: 100.0 }
    }
}

/// Runs it.
///
/// # Errors
/// When a part fails: something does not come back after a cut. What was lost is no error here; see
/// [`Figures::missed`].
pub fn run(rig: &dyn Rig, plan: Plan, assets: &Assets, progress: &dyn Progress) -> Result<Figures> {
    let (side, seed) = (plan.side.words(), plan.seed);
    let begun = Instant::now();
    progress.stage(1, STAGES, &format!("a hub and a device, each on a volume (seed {seed})"));
    let mut world = World::begin(rig, assets, plan.rate_hz, seed)?;
    progress.stage(2, STAGES, &format!("cut the power of {side} {} times", plan.cuts));
    let all = cut_again_and_again(&mut world, plan, progress)
        .with_context(|| format!("seed {seed} replays this"))?;
    progress.stage(3, STAGES, "drain, and hold what was said against what is stored");
    let drained = world.drain().with_context(|| format!("seed {seed} replays this"))?;
    let World { hub, ledger, rollouts, .. } = world;
    let (rolled_out, rollouts_halted) = rollouts.outcome();
    let disk = HubDisk::read(hub.data())?;
    let spread = Spread::of(&all.iter().map(|(_, met)| *met).collect::<Vec<_>>());
    let mut met = BTreeMap::new();
    for (cut, _) in all.iter().filter(|(_, met)| met.aimed) {
        *met.entry(cut.state).or_default() += 1;
    }
    Ok(Figures {
        side: plan.side,
        seed,
        cuts: all.len(),
        beside: all.iter().filter(|(_, met)| !met.aimed).count(),
        met,
        acknowledged: ledger.stored.len(),
        signed: drained.samples_signed_total,
        receipted: ledger.receipted.len(),
        stored: disk.samples.len(),
        lost: judge::missing(&ledger.stored, &disk).len(),
        gaps: disk.gaps.len(),
        at_risk_median: spread.at_risk.0,
        at_risk_most: spread.at_risk.1,
        answered_after_median_s: spread.answered_after_s.0,
        answered_after_longest_s: spread.answered_after_s.1,
        rollouts: rolled_out,
        rollouts_halted,
        wall_s: begun.elapsed().as_secs_f64(),
        faults: judge::faults(&ledger, &disk),
    })
}

fn cut_again_and_again(
    world: &mut World<'_>,
    plan: Plan,
    progress: &dyn Progress,
) -> Result<Vec<(Cut, Met)>> {
    let mut cuts = Cuts::new(plan.seed);
    let mut done: Vec<(Cut, Met)> = Vec::new();
    while done.len() < plan.cuts {
        // Endless.
        let Some(mut cut) = cuts.next() else { bail!("the cuts have ended") };
        for aim in 1.. {
            let number = done.len() + 1;
            let (state, millis) = (cut.state.words(), cut.after.as_millis());
            let met = world
                .cut(plan.side, cut)
                .with_context(|| format!("cut {number}, {millis} ms into {state}"))?;
            done.push((cut, met));
            let risk = met.at_risk;
            let late = if met.aimed { "" } else { ", which was over" };
            progress.note(&format!("cut {number}: {millis} ms into {state}{late}; {risk} at risk"));
            progress.at(Some(done.len() as f32 / plan.cuts as f32), state);
            if met.aimed || aim == AIMS {
                break;
            }
            cut = cuts.earlier(cut);
        }
    }
    Ok(done)
}
