//! Inference waits for nothing: how long a frame takes while all is quiet, and while the link
//! stalls, a model is swapped, the disk is full, or a long outbox drains; and how soon the first
//! frame is answered when the outbox is full.
//!
//! One agent at shares of its capacity, one after another, which signs and sends some of its frames; a
//! hub on the same machine. A turn is a quiet phase with a disturbed one amid it, so that a machine that
//! becomes slower or faster meanwhile does so for both; one of the disturbances is none at all, and its
//! ratio says how far two quiet phases lie apart. A machine that others share is not as fast a minute
//! later: the capacity is measured before each turn and after it. A turn that turns out to have had more
//! than its share of the smaller of the two, or in which the machine stood still most of the time, is told
//! and taken again.
//!
//! Nor is such a machine as fast from one second to the next, and at the largest share a little less is
//! the difference between no queue and a long one. So the disturbed phases of all turns are also held
//! against those pieces of all quiet ones in which as much was asked of an equally fast machine
//! ([`Alike`]); that is what says whether a disturbance disturbs.
//!
//! At a small share a latency is what a frame met; at the largest, where a queue makes much of little,
//! that no frame is dropped says more than how long one took. Frame latency is the agent's own figure
//! (due → answered), read for every frame from its local port. Frames that the machine itself delayed,
//! because a host took its processors, are left out and counted ([`crate::rig::Host`]): they say
//! nothing of the product. Dropped frames all count, whatever the machine did.

mod alike;
mod capacity;
mod phases;
mod start;
mod watch;

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::api::Local;
use crate::fleet::{Agent, AgentStatus, Assets, HubPlace, Plant, Selection, models};
use crate::pictures::{Part, paths};
use crate::progress::Progress;
use crate::rig::{Host, Priority, Rig, Volume};

pub use alike::{Alike, Window};
pub use phases::{Disturbance, Phase};
pub use start::Starts;

/// Frames a second until the capacity is known.
const FIRST_RATE_HZ: f64 = 20.0;

/// What is aimed at of a share: the machine may do less a moment later than what was measured before.
const AIM: f64 = 0.9;

/// How often a turn is taken until one counts.
const TRIES: u32 = 3;

/// How long the agent may take for anything that it does by itself.
const SOON: Duration = Duration::from_secs(120);

/// The agent goes before what else runs on this machine; needs root, and is a note in the log
/// without. The hub, which would be on another machine, has what nobody else wants.
const FIRST: Priority = Priority::Nice(-10);

/// How large a run is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often every disturbance takes its turn at each load.
    pub rounds: u32,
    /// How long a phase lasts; half of a quiet one is before the disturbance and half after it.
    pub phase: Duration,
    /// How long the hub is away before the outbox drains.
    pub away: Duration,
    /// The shares of the capacity up to which frames arrive.
    pub loads: [f64; 2],
    /// How many frames a second are signed and kept, besides while the outbox is filled.
    pub samples_hz: f64,
    /// How large the outbox is that the agent starts with.
    pub outbox_bytes: u64,
    /// How often it is started with it, and with an empty one.
    pub starts: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            rounds: 3,
            phase: Duration::from_secs(16),
            away: Duration::from_secs(36),
            loads: [0.35, 0.7],
            samples_hz: 60.0,
            outbox_bytes: 1_000_000_000,
            starts: 3,
        }
    }
}

/// What a run measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// Every turn, in order.
    pub turns: Vec<Turn>,
    /// Each disturbance at each load beside quiet in which the machine was alike, over all turns that
    /// count. None where the machine's processors are threads of one core: how fast they are is then
    /// the product's own doing as well.
    pub alike: Vec<Alike>,
    /// The starts.
    pub starts: Starts,
}

/// A quiet phase and the disturbed one amid it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    /// The share of the capacity that it shall not exceed.
    pub load: f64,
    /// Frames a second that arrived.
    pub rate_hz: f64,
    /// Frames a second that the device answers at work for as long as it likes, with samples to sign and
    /// a hub to talk to, when more arrive: before the turn or after it, the smaller one.
    pub capacity_hz: f64,
    /// Whether it did not exceed its share, and the machine did not stand still for most of it. One
    /// that does not count says nothing, and is taken again.
    pub counts: bool,
    /// What disturbed.
    pub disturbance: Disturbance,
    /// Before and after.
    pub quiet: Phase,
    /// During.
    pub disturbed: Phase,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turns, alike, starts } = self;
        for turn in turns {
            writeln!(f, "{turn}")?;
        }
        for alike in alike {
            writeln!(f, "{alike}")?;
        }
        let Starts { outbox_bytes, outbox_samples, full_ms, empty_ms } = starts;
        let megabytes = outbox_bytes / 1_000_000;
        writeln!(
            f,
            "first answer with {megabytes} MB of {outbox_samples} samples: {full_ms:.0?} ms"
        )?;
        writeln!(f, "first answer with an empty outbox: {empty_ms:.0?} ms")
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate_hz, capacity_hz, counts, disturbance, quiet, disturbed, .. } = self;
        let ratio = disturbed.p99_us as f64 / quiet.p99_us as f64;
        write!(
            f,
            "{rate_hz:4.0} of {capacity_hz:4.0} Hz, {:12} p99 {:6} µs, quiet {:6} µs: {ratio:5.2}; \
             dropped {}, quiet {}; left out {}, {}{}",
            disturbance.name(),
            disturbed.p99_us,
            quiet.p99_us,
            disturbed.dropped,
            quiet.dropped,
            disturbed.left_out,
            quiet.left_out,
            if *counts { "" } else { "; does not count" }
        )
    }
}

/// A run under way.
struct Run<'r> {
    rig: &'r dyn Rig,
    plan: Plan,
    progress: &'r dyn Progress,
    plant: Plant<'r>,
    volume: Volume,
    agent: Agent<'r>,
    local: Local,
    host: Host,
    last_capacity_hz: Option<f64>,
}

/// Measures.
///
/// # Errors
/// When a part fails, or a disturbance did not disturb.
pub fn run(rig: &dyn Rig, plan: Plan, assets: &Assets, progress: &dyn Progress) -> Result<Figures> {
    progress.stage(1, 3, "make two models, a hub and a device");
    let folders = models::mobile(rig, assets)?;
    let place = HubPlace::loopback(rig);
    let mut plant = Plant::build(rig, assets, progress, &place, &folders, |_| Ok(()))?;
    plant.hub.set_priority(Priority::Idle);
    let volume = rig.volume("device")?;
    let mut agent = plant.enrol("agent-1", Selection::everything(), FIRST_RATE_HZ, |agent| {
        agent.set_priority(FIRST);
        agent.set_data(volume.folder.join("data"))
    })?;
    let (images, _) = paths(&assets.fashion_mnist, Part::Test);
    std::fs::copy(images, agent.images()).context("cannot copy pictures for the device")?;
    agent.start()?;
    plant.roll_out(plant.bundles[0], &agent)?;
    agent.stop()?;
    let local = Local::new()?;
    let host = rig.host()?;
    if !host.processors_are_apart() {
        progress.note("processors share a core: what each turn has beside it is all that is told");
    }
    let mut run =
        Run { rig, plan, progress, plant, volume, agent, local, host, last_capacity_hz: None };
    progress.stage(2, 3, "start with a full outbox and with an empty one");
    let starts = run.starts()?;
    progress.stage(3, 3, "disturb it");
    let mut turns = Vec::new();
    for round in 1..=plan.rounds {
        progress.note(&format!("round {round} of {}", plan.rounds));
        turns.extend(run.round()?);
    }
    let apart = run.host.processors_are_apart();
    let alike = if apart { alike::of(&turns) } else { Vec::new() };
    Ok(Figures { turns, alike, starts })
}

impl Run<'_> {
    fn status(&self) -> Result<AgentStatus> {
        self.agent.status(&self.local)
    }

    fn round(&mut self) -> Result<Vec<Turn>> {
        let mut turns = Vec::new();
        let mut before_hz = self.capacity_hz()?;
        for load in self.plan.loads {
            for disturbance in Disturbance::ALL {
                for _ in 0..TRIES {
                    let rate_hz = (before_hz * load * AIM).floor();
                    self.progress.at(None, &format!("{rate_hz:.0} Hz: {}", disturbance.name()));
                    let (quiet, disturbed) = self.turn(load, rate_hz, disturbance)?;
                    let after_hz = self.capacity_hz()?;
                    let capacity_hz = before_hz.min(after_hz);
                    before_hz = after_hz;
                    let within = rate_hz <= load * capacity_hz;
                    let counts = within && quiet.tells() && disturbed.tells();
                    let turn =
                        Turn { load, rate_hz, capacity_hz, counts, disturbance, quiet, disturbed };
                    self.progress.note(&turn.to_string());
                    turns.push(turn);
                    if counts {
                        break;
                    }
                }
            }
        }
        Ok(turns)
    }

    /// Starts the agent with frames that arrive, and are about to be answered, in a second.
    fn start_at(&mut self, arrive_hz: f64, answered_hz: f64) -> Result<()> {
        let random_rate = (self.plan.samples_hz / answered_hz).min(1.0) as f32;
        self.agent.set_selection(Selection { random_rate, ..Selection::everything() })?;
        self.agent.set_rate(arrive_hz)?;
        self.agent.set_queue_to_default()?;
        self.agent.start()
    }
}
