//! Inference waits for nothing: how long a frame takes while all is quiet, and while the link
//! stalls, a model is swapped, the disk is full, or a long outbox drains; and how soon the first
//! frame is answered when the outbox is full.
//!
//! One agent at shares of its capacity, one after another, which signs and sends some of its frames; a
//! hub on the same machine. Quiet and disturbed phases take turns, so that what else the machine does
//! meets both alike; one of the disturbances is none at all, and its ratio says how far two quiet
//! phases lie apart. At a small share a latency is what a frame met; at the largest, where a queue
//! makes much of little, that no frame is dropped says more than how long one took. Frame latency is the agent's own figure (due → answered), read for every frame from
//! its local port. Frames that the machine itself delayed, because a host took its processors, are left
//! out and counted ([`crate::rig::Pauses`]): they say nothing of the product.

mod phases;
mod start;
mod watch;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::api::Local;
use crate::fleet::{Agent, AgentStatus, Assets, HubPlace, Plant, Selection, models};
use crate::pictures::{Part, paths};
use crate::progress::Progress;
use crate::rig::{Pauses, Priority, Rig, Volume};

pub use phases::{Disturbance, Phase};
pub use start::Starts;

/// Frames a second until the capacity is known.
const FIRST_RATE_HZ: f64 = 20.0;

/// Frames that arrive for each that can be answered while the capacity is measured.
const TOO_MUCH: f64 = 2.0;

/// Phases in which it is measured.
const CAPACITY_PHASES: u32 = 4;

/// How long the agent may take for anything that it does by itself.
const SOON: Duration = Duration::from_secs(120);

/// The agent goes before what else runs on this machine; needs root, and is a note in the log
/// without. The hub, which would be on another machine, has what nobody else wants.
const FIRST: Priority = Priority::Nice(-10);

/// How large a run is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often the capacity is measured and every disturbance takes its turn at each load.
    pub rounds: u32,
    /// How long a phase lasts.
    pub phase: Duration,
    /// How long the hub is away before the outbox drains.
    pub away: Duration,
    /// The shares of the capacity at which frames arrive.
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
            phase: Duration::from_secs(8),
            away: Duration::from_secs(30),
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
    /// Every round, in order.
    pub rounds: Vec<Round>,
    /// The starts.
    pub starts: Starts,
}

/// One round: a machine that others share is not as fast in the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// Frames a second that the device answers at work for as long as it likes, with samples to sign and
    /// a hub to talk to, when more arrive. `edge-agent check`, which answers one after another, can be off it by a third
    /// in both directions.
    pub capacity_hz: f64,
    /// Each load, in order.
    pub loads: Vec<Loaded>,
}

/// What a round measured at one load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Loaded {
    /// The share of the capacity at which frames arrived.
    pub load: f64,
    /// Frames a second that arrived.
    pub rate_hz: f64,
    /// A turn of every disturbance, in order.
    pub turns: Vec<Turn>,
}

/// A quiet phase and the disturbed one after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    /// What disturbed.
    pub disturbance: Disturbance,
    /// Before.
    pub quiet: Phase,
    /// During.
    pub disturbed: Phase,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, starts } = self;
        for Round { capacity_hz, loads } in rounds {
            for Loaded { rate_hz, turns, .. } in loads {
                writeln!(
                    f,
                    "{rate_hz:.0} frames a second, of {capacity_hz:.0} that can be answered"
                )?;
                for turn in turns {
                    writeln!(f, "{turn}")?;
                }
            }
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
        let Self { disturbance, quiet, disturbed } = self;
        let ratio = disturbed.p99_us as f64 / quiet.p99_us as f64;
        write!(
            f,
            "{:13} p99 {:7} µs, quiet {:7} µs: {ratio:5.2}; dropped {}, quiet {}; left out {}, {}",
            disturbance.name(),
            disturbed.p99_us,
            quiet.p99_us,
            disturbed.dropped,
            quiet.dropped,
            disturbed.left_out,
            quiet.left_out
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
    pauses: Pauses,
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
    let pauses = rig.pauses()?;
    let mut run = Run { rig, plan, progress, plant, volume, agent, local, pauses };
    progress.stage(2, 3, "start with a full outbox and with an empty one");
    let starts = run.starts()?;
    progress.stage(3, 3, "disturb it");
    let rounds = (1..=plan.rounds).map(|round| {
        progress.note(&format!("round {round} of {}", plan.rounds));
        run.round()
    });
    Ok(Figures { rounds: rounds.collect::<Result<_>>()?, starts })
}

impl Run<'_> {
    fn status(&self) -> Result<AgentStatus> {
        self.agent.status(&self.local)
    }

    fn round(&mut self) -> Result<Round> {
        let capacity_hz = self.capacity_hz()?;
        let loads = self.plan.loads.map(|load| self.at_load(load, (capacity_hz * load).floor()));
        Ok(Round { capacity_hz, loads: loads.into_iter().collect::<Result<_>>()? })
    }

    fn capacity_hz(&mut self) -> Result<f64> {
        let check = self.agent.start_check()?;
        let alone_hz = self.agent.capacity(&check)?.frames_per_second;
        ensure!(alone_hz.is_finite() && alone_hz > 1.0, "{alone_hz} frames/s is no rate");
        self.set_rate(alone_hz * TOO_MUCH, alone_hz)?;
        let capacity_hz = self.answered_hz()?;
        self.progress
            .note(&format!("{alone_hz:.0} frames/s one after another, {capacity_hz:.0} at work"));
        Ok(capacity_hz)
    }

    /// From the next start on: frames that arrive, and that are about to be answered, in a second.
    fn set_rate(&mut self, arrive_hz: f64, answered_hz: f64) -> Result<()> {
        let random_rate = (self.plan.samples_hz / answered_hz).min(1.0) as f32;
        self.agent.set_selection(Selection { random_rate, ..Selection::everything() })?;
        self.agent.set_rate(arrive_hz)?;
        self.agent.set_queue_to_default()
    }

    /// Frames that are answered in a second in which more arrive than can be: in the slowest of some
    /// phases, for a machine that others share is fastest when it has just rested.
    fn answered_hz(&mut self) -> Result<f64> {
        self.agent.start()?;
        self.until_it("answers and is connected", |status| {
            status.connected() && status.answering().is_some()
        })?;
        let answered = || {
            let frames = self.status()?.frames().context("it does not run")?;
            Ok::<_, anyhow::Error>((Instant::now(), frames))
        };
        let (mut begun, mut before) = answered()?;
        let mut slowest_hz = f64::INFINITY;
        for _ in 0..CAPACITY_PHASES {
            std::thread::sleep(self.plan.phase);
            let (ended, after) = answered()?;
            ensure!(
                after.frames_dropped > before.frames_dropped,
                "it answered all frames: more have to arrive to find what it can do"
            );
            let frames = after.frames_answered - before.frames_answered;
            slowest_hz = slowest_hz.min(frames as f64 / ended.duration_since(begun).as_secs_f64());
            (begun, before) = (ended, after);
        }
        self.agent.stop()?;
        Ok(slowest_hz)
    }
}
