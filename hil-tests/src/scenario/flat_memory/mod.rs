//! Memory over a long time of work is flat.
//!
//! One agent at a share of its capacity, which signs and sends some of its frames. Again and again
//! a model is swapped, the link stalls, and the hub is killed and comes back, so that connections,
//! sessions, sample messages and the outbox's file are made and given back many times. What the
//! process holds resident is read every few seconds. After the warm-up, the middle of the first
//! tenth of the readings is held against the middle of the last tenth.

mod trend;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::fleet::{Agent, Assets, HubPlace, Plant, Selection, models};
use crate::pictures::{Part, paths};
use crate::progress::Progress;
use crate::rig::Rig;

pub use trend::{Reading, Trend};

/// The most that may be added over the run, in bytes, whatever its length: what allocators keep
/// for later and pages of a library that are touched late. A message that is leaked once a minute
/// is more.
pub const GROWTH_BYTES: f64 = 3.0 * 1024.0 * 1024.0;

/// Frames a second until the capacity is known.
const FIRST_RATE_HZ: f64 = 20.0;

/// Frames a second that are signed and sent: what a hub on the same machine stores with ease.
const SAMPLES_HZ: f64 = 30.0;

/// How long the agent may take to come back.
const SOON: Duration = Duration::from_secs(120);

/// How often memory is read.
const EVERY: Duration = Duration::from_secs(2);

/// How long the link stalls, and the hub is away.
const FAULT: Duration = Duration::from_secs(6);

/// Work without a fault, between two.
const CALM: Duration = Duration::from_secs(10);

/// How long a run is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// In all, warm-up included.
    pub time: Duration,
    /// The share of the capacity at which frames arrive.
    pub load: f64,
}

impl Plan {
    /// A run of this length, a fifth of which, at most five minutes, is warm-up.
    pub const fn of_minutes(minutes: usize) -> Self {
        Self { time: Duration::from_secs(minutes as u64 * 60), load: 0.7 }
    }

    fn warm_up(&self) -> Duration {
        (self.time / 5).min(Duration::from_secs(300))
    }
}

/// What a run measured.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Frames a second that arrived.
    pub rate_hz: f64,
    /// Frames that were answered.
    pub frames: u64,
    /// Frames that were dropped.
    pub dropped: u64,
    /// Samples that were signed, and of these with a receipt.
    pub samples: [u64; 2],
    /// Swaps, stalls and kills of the hub.
    pub faults: u64,
    /// What became of the memory.
    pub trend: Trend,
    /// What was read.
    pub readings: Vec<Reading>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate_hz, frames, dropped, samples, faults, trend, .. } = self;
        writeln!(
            f,
            "frames            {frames:9} answered at {rate_hz:.0} a second, {dropped} dropped"
        )?;
        writeln!(f, "samples           {:9} signed, {} with a receipt", samples[0], samples[1])?;
        writeln!(f, "faults            {faults:9} swaps, stalls of the link, kills of the hub")?;
        write!(f, "{trend}")
    }
}

struct Run<'r> {
    rig: &'r dyn Rig,
    progress: &'r dyn Progress,
    plant: Plant<'r>,
    agent: Agent<'r>,
    begun: Instant,
    time: Duration,
    readings: Vec<Reading>,
}

/// Runs the agent and watches its memory.
///
/// # Errors
/// When a part fails. Growth above [`GROWTH_BYTES`] is no error here; see [`Trend::is_flat`].
pub fn run(rig: &dyn Rig, plan: Plan, assets: &Assets, progress: &dyn Progress) -> Result<Figures> {
    progress.stage(1, 2, "make two models, a hub and a device");
    let folders = models::mobile(rig, assets)?;
    let plant =
        Plant::build(rig, assets, progress, &HubPlace::loopback(rig), &folders, |_| Ok(()))?;
    let mut agent = plant.enrol("agent-1", Selection::everything(), FIRST_RATE_HZ, |_| Ok(()))?;
    let (images, _) = paths(&assets.fashion_mnist, Part::Test);
    std::fs::copy(images, agent.images()).context("cannot copy pictures for the device")?;
    agent.start()?;
    plant.roll_out(plant.bundles[0], &agent)?;
    agent.stop()?;
    let capacity = agent.capacity(&agent.start_check()?)?;
    let rate_hz = (capacity.frames_per_second * plan.load).floor().max(1.0);
    let random_rate = (SAMPLES_HZ / rate_hz).min(1.0) as f32;
    agent.set_selection(Selection { random_rate, ..Selection::everything() })?;
    agent.set_rate(rate_hz)?;
    progress.stage(2, 2, &format!("{rate_hz:.0} frames a second, with faults in between"));
    agent.start()?;
    let (begun, time, readings) = (Instant::now(), plan.time, Vec::new());
    let mut run = Run { rig, progress, plant, agent, begun, time, readings };
    let faults = run.work()?;
    let last = run.agent.stop()?;
    let trend = Trend::of(&run.readings, plan.warm_up())?;
    Ok(Figures {
        rate_hz,
        frames: last.frames_answered,
        dropped: last.frames_dropped,
        samples: [last.samples_signed_total, last.samples_receipted_total],
        faults,
        trend,
        readings: run.readings,
    })
}

impl Run<'_> {
    /// Faults in turn until the time is over, and back to calm; how many there were.
    fn work(&mut self) -> Result<u64> {
        let mut faults = 0;
        while self.begun.elapsed() < self.time {
            self.watch(CALM)?;
            match faults % 3 {
                0 => self.swap()?,
                1 => {
                    self.plant.hub.stall(true)?;
                    let watched = self.watch(FAULT);
                    self.plant.hub.stall(false)?;
                    watched?;
                }
                _ => {
                    self.plant.hub.kill()?;
                    self.watch(FAULT)?;
                    self.plant.hub.start()?;
                }
            }
            faults += 1;
            self.agent.becomes("reach its hub again", SOON, |status| status.connected())?;
        }
        ensure!(faults >= 3, "the time was too short for a fault of each kind");
        Ok(faults)
    }

    fn swap(&self) -> Result<()> {
        let now = self.agent.told()?.answering();
        let other = self.plant.bundles.iter().find(|bundle| Some(**bundle) != now);
        self.plant.roll_out(*other.context("there is no other model")?, &self.agent)
    }

    fn watch(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.agent.must_run()?;
            let process = self.agent.process().context("the agent does not run")?;
            let resident_bytes = self.rig.resident_bytes(process)?;
            let at = self.begun.elapsed();
            self.readings.push(Reading { at_s: at.as_secs_f64(), resident_bytes });
            let share = at.as_secs_f32() / self.time.as_secs_f32();
            let text = format!("{:.1} MB resident", resident_bytes as f64 / 1e6);
            self.progress.at(Some(share), &text);
            std::thread::sleep(EVERY);
        }
        Ok(())
    }
}
