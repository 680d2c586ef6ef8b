//! Inference waits for nothing: how long a frame takes while all is quiet, and while the link
//! stalls, a model is swapped, the disk is full, or a long outbox drains; and how soon the first
//! frame is answered when the outbox is full.
//!
//! One agent at shares of its capacity, one after another, which signs and sends some of its frames; a
//! hub on the same machine. The device has one half of the machine's processors to itself; the hub and
//! whoever measures, which would be elsewhere, have the other ([`crate::rig::Half`]), and nothing runs
//! beside inference to watch the machine: a thread that does, for a few microseconds each millisecond,
//! makes the scheduler choose anew each time, and is a disturbance of its own.
//!
//! In a turn disturbed pieces and quiet ones follow one another every few seconds, so that a machine that
//! becomes slower or faster meanwhile does so for both. One of the disturbances is none at all: its ratio
//! says how far quiet lies from quiet. All disturbed pieces of all turns at a load are held against all
//! quiet ones ([`Beside`]), and no frame is left out, whatever the machine did.
//!
//! A machine that others share is not as fast a minute later: the capacity is measured before each turn and
//! after it. A turn that turns out to have had more than its share of the smaller of the two is told and
//! taken again.
//!
//! Frame latency is the agent's own figure (due → answered), read for every frame from its local port.

mod beside;
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
use crate::rig::{Half, Rig, Volume};

pub use beside::Beside;
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

/// How large a run is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often every disturbance takes its turn at each load.
    pub rounds: u32,
    /// How many disturbed pieces a turn has, and quiet ones.
    pub pieces: u32,
    /// How long a piece lasts.
    pub piece: Duration,
    /// How long the link has been held when a piece begins in which it still is, or in which what waited
    /// is sent.
    pub held: Duration,
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
            pieces: 8,
            piece: Duration::from_secs(2),
            held: Duration::from_secs(5),
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
    /// Each disturbance at each load beside quiet, over all turns that count.
    pub beside: Vec<Beside>,
    /// The starts.
    pub starts: Starts,
}

/// Disturbed pieces and quiet ones, by turns.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    /// The share of the capacity that it shall not exceed.
    pub load: f64,
    /// Frames a second that arrived.
    pub rate_hz: f64,
    /// Frames a second that the device answers at work for as long as it likes, with samples to sign and
    /// a hub to talk to, when more arrive: before the turn or after it, the smaller one.
    pub capacity_hz: f64,
    /// Whether it did not exceed its share. One that does not count says nothing, and is taken again.
    pub counts: bool,
    /// What disturbed.
    pub disturbance: Disturbance,
    /// The quiet pieces, each after the disturbed one of the same number.
    pub quiet: Phase,
    /// The disturbed pieces.
    pub disturbed: Phase,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turns, beside, starts } = self;
        for turn in turns {
            writeln!(f, "{turn}")?;
        }
        for beside in beside {
            writeln!(f, "{beside}")?;
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
             dropped {}, quiet {}{}",
            disturbance.name(),
            disturbed.p99_us,
            quiet.p99_us,
            disturbed.dropped,
            quiet.dropped,
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
    last_capacity_hz: Option<f64>,
}

/// Measures.
///
/// # Errors
/// When a part fails, or a disturbance did not disturb.
pub fn run(rig: &dyn Rig, plan: Plan, assets: &Assets, progress: &dyn Progress) -> Result<Figures> {
    let _apart = rig.apart()?;
    progress.stage(1, 3, "make two models, a hub and a device");
    let folders = models::mobile(rig, assets)?;
    let place = HubPlace::loopback(rig);
    let mut plant = Plant::build(rig, assets, progress, &place, &folders, |_| Ok(()))?;
    plant.hub.set_half(Half::Others);
    let volume = rig.volume("device")?;
    let mut agent = plant.enrol("agent-1", Selection::everything(), FIRST_RATE_HZ, |agent| {
        agent.set_half(Half::Device);
        agent.set_data(volume.folder.join("data"))
    })?;
    let (images, _) = paths(&assets.fashion_mnist, Part::Test);
    std::fs::copy(images, agent.images()).context("cannot copy pictures for the device")?;
    agent.start()?;
    plant.roll_out(plant.bundles[0], &agent)?;
    agent.stop()?;
    let local = Local::new()?;
    let mut run = Run { rig, plan, progress, plant, volume, agent, local, last_capacity_hz: None };
    progress.stage(2, 3, "start with a full outbox and with an empty one");
    let starts = run.starts()?;
    progress.stage(3, 3, "disturb it");
    let mut turns = Vec::new();
    for round in 1..=plan.rounds {
        progress.note(&format!("round {round} of {}", plan.rounds));
        turns.extend(run.round()?);
    }
    let beside = beside::of(&turns);
    Ok(Figures { turns, beside, starts })
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
                    let (disturbed, quiet) = self.turn(rate_hz, disturbance)?;
                    let after_hz = self.capacity_hz()?;
                    let capacity_hz = before_hz.min(after_hz);
                    before_hz = after_hz;
                    let counts = rate_hz <= load * capacity_hz;
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
