//! Crowds of clients that connect and are silent, and a device that floods, beside devices at work.
//!
//! The hub has few descriptors. For each place at which a connection can be silent, a crowd of more
//! connections than the hub has descriptors opens them, and opens again what the hub closes; half of
//! it comes from the address of the devices. Meanwhile devices send samples, and the admin page is
//! opened on a new connection twice a second.
//!
//! What must hold: every page comes within [`PAGE`]; the hub never has more descriptors open than it
//! may; at the end every sample that was signed is stored once. Beside a flood, no sample of another
//! device waits longer than [`LATE`] for its receipt.

mod client;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use super::faults::ledger::Ledger;
use crate::fleet::{Agent, Assets, HubPlace, Plant, Selection, test_bundles};
use crate::pictures::{Part, paths};
use crate::progress::Progress;
use crate::rig::Rig;

pub use client::Silence;
use client::{Listeners, Silent};

/// Frames a second of each device, each of them a sample.
const RATE_HZ: f64 = 4.0;

/// How long the admin page may take.
const PAGE: Duration = Duration::from_secs(2);

/// How often it is asked for.
const LOOK: Duration = Duration::from_millis(500);

/// How long a sample may wait beside a flood.
const LATE: Duration = Duration::from_secs(5);

/// How long devices may take until they are at work.
const BEGIN: Duration = Duration::from_secs(120);

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Devices at work.
    pub devices: usize,
    /// Descriptors that the hub may have open.
    pub descriptors: u64,
    /// Connections of a crowd.
    pub connections: usize,
    /// How long each crowd stays, and the flood.
    pub time: Duration,
}

impl Plan {
    /// What a hub has to bear.
    pub const fn full() -> Self {
        Self { devices: 5, descriptors: 1024, connections: 1100, time: Duration::from_secs(60) }
    }

    /// The same in little, for continuous integration.
    pub const fn small() -> Self {
        Self { devices: 3, descriptors: 256, connections: 300, time: Duration::from_secs(3) }
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// The crowds, in order.
    pub crowds: Vec<Crowd>,
    /// Samples signed, and as many stored.
    pub samples: u64,
}

/// What came of one crowd.
#[derive(Debug, Clone, Serialize)]
pub struct Crowd {
    /// Where it was silent.
    pub silence: Silence,
    /// Connections that the hub closed or refused.
    pub closed: u64,
    /// Pages that were opened meanwhile.
    pub pages: u64,
    /// The longest that one took, in milliseconds.
    pub page_max_ms: u128,
    /// The most descriptors that the hub had open.
    pub descriptors_max: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Crowd { silence, closed, pages, page_max_ms, descriptors_max } in &self.crowds {
            writeln!(
                f,
                "{:14} {closed:6} connections closed, {pages:4} pages, the slowest after \
                 {page_max_ms:5} ms, at most {descriptors_max:5} descriptors",
                format!("{silence:?}"),
            )?;
        }
        writeln!(f, "{} samples signed and stored", self.samples)
    }
}

/// Runs the crowds, one after another.
///
/// # Errors
/// When something that must hold does not.
pub fn run(rig: &dyn Rig, plan: Plan, assets: &Assets, progress: &dyn Progress) -> Result<Figures> {
    let stages = Silence::ALL.len() + 2;
    progress.stage(1, stages, "make a hub with few descriptors, and devices at work");
    let mut fleet = Fleet::begin(rig, plan, assets, progress)?;
    let mut crowds = Vec::new();
    for (number, silence) in Silence::ALL.into_iter().enumerate() {
        progress.stage(number + 2, stages, &format!("silent: {silence:?}"));
        crowds.push(fleet.crowd(silence).with_context(|| format!("the crowd {silence:?}"))?);
    }
    progress.stage(stages, stages, "count");
    Ok(Figures { crowds, samples: fleet.end()? })
}

/// What came of a flood.
#[derive(Debug, Clone, Serialize)]
pub struct FloodFigures {
    /// Messages that the flood sent.
    pub sent: u64,
    /// The most samples of one other device that waited at once.
    pub waiting_max: u64,
    /// Samples of the others, signed and stored.
    pub samples: u64,
}

impl fmt::Display for FloodFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, waiting_max, samples } = self;
        let late = *waiting_max as f64 / RATE_HZ;
        writeln!(
            f,
            "{sent} messages of the flood; another device's samples waited at most {late:.1} s"
        )?;
        writeln!(f, "{samples} samples of the others signed and stored")
    }
}

/// Runs a device that floods beside those at work.
///
/// # Errors
/// When something that must hold does not.
pub fn flood(
    rig: &dyn Rig,
    plan: Plan,
    assets: &Assets,
    progress: &dyn Progress,
) -> Result<FloodFigures> {
    progress.stage(1, 3, "make a hub, and devices at work");
    let fleet = Fleet::begin(rig, plan, assets, progress)?;
    progress.stage(2, 3, "a device floods");
    let sent = Arc::new(AtomicU64::new(0));
    let [tls, _] = client::tls(&fleet.stranger.data().join("identity"))?;
    let flooding =
        client::flood(fleet.listeners.mqtt, device_of(&fleet.stranger)?, tls, Arc::clone(&sent));
    let task = fleet.runtime.spawn(flooding);
    let waiting_max = fleet.waiting(plan.time);
    task.abort();
    let waiting_max = waiting_max?;
    let sent = sent.load(Ordering::Relaxed);
    ensure!(sent > 0, "nothing was flooded");
    let late = Duration::from_secs_f64(waiting_max as f64 / RATE_HZ);
    ensure!(late <= LATE, "beside the flood, samples waited {late:?} for their receipt");
    progress.stage(3, 3, "count");
    Ok(FloodFigures { sent, waiting_max, samples: fleet.end()? })
}

/// A hub, devices at work, and one more that is enrolled and does not run.
struct Fleet<'r> {
    rig: &'r dyn Rig,
    plan: Plan,
    plant: Plant<'r>,
    agents: Vec<Agent<'r>>,
    stranger: Agent<'r>,
    listeners: Listeners,
    runtime: tokio::runtime::Runtime,
}

impl<'r> Fleet<'r> {
    fn begin(
        rig: &'r dyn Rig,
        plan: Plan,
        assets: &Assets,
        progress: &'r dyn Progress,
    ) -> Result<Self> {
        let folders = test_bundles();
        let place = HubPlace::loopback(rig);
        let plant = Plant::build(rig, assets, progress, &place, &folders[..1], |hub| {
            hub.set_descriptors(plan.descriptors);
            Ok(())
        })?;
        let (images, _) = paths(&assets.fashion_mnist, Part::Test);
        let mut agents = Vec::new();
        for number in 1..=plan.devices {
            let name = format!("agent-{number}");
            let mut agent = plant.enrol(&name, Selection::everything(), RATE_HZ, |_| Ok(()))?;
            std::fs::copy(&images, agent.images()).context("cannot copy pictures")?;
            agent.start()?;
            agents.push(agent);
        }
        plant.roll_out_to_all(plant.bundles[0], &agents)?;
        for agent in &agents {
            agent.becomes("work", BEGIN, |status| {
                status.answering().is_some() && status.connected()
            })?;
        }
        // After the rollout, which waits for every device that is enrolled.
        let stranger = plant.enrol("stranger", Selection::everything(), RATE_HZ, |_| Ok(()))?;
        let [admin, device, mqtt] = plant.hub.listeners()?;
        let listeners = Listeners { admin, device, mqtt };
        raise(plan.connections as u64 + 256)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start a runtime for the crowd")?;
        Ok(Self { rig, plan, plant, agents, stranger, listeners, runtime })
    }

    fn crowd(&mut self, silence: Silence) -> Result<Crowd> {
        let closed = Arc::new(AtomicU64::new(0));
        let [with_certificate, without] = client::tls(&self.stranger.data().join("identity"))?;
        let tasks: Vec<_> = (0..self.plan.connections)
            .map(|number| Silent {
                silence,
                number,
                listeners: self.listeners,
                with_certificate: Arc::clone(&with_certificate),
                without: Arc::clone(&without),
                closed: Arc::clone(&closed),
            })
            .map(|silent| self.runtime.spawn(silent.run()))
            .collect();
        let seen = self.look_on();
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let (pages, page_max, descriptors_max) = seen?;
        let closed = closed.load(Ordering::Relaxed);
        Ok(Crowd { silence, closed, pages, page_max_ms: page_max.as_millis(), descriptors_max })
    }

    /// Opens pages and counts descriptors for a crowd's time.
    fn look_on(&self) -> Result<(u64, Duration, u64)> {
        let begun = Instant::now();
        let (mut pages, mut page_max, mut descriptors_max) = (0, Duration::ZERO, 0);
        while begun.elapsed() < self.plan.time {
            let asked = Instant::now();
            self.plant.hub.api().open_page(PAGE)?;
            (pages, page_max) = (pages + 1, page_max.max(asked.elapsed()));
            let open = self.rig.open_descriptors(self.plant.hub.running()?)?;
            descriptors_max = descriptors_max.max(open);
            ensure!(open <= self.plan.descriptors, "the hub has {open} descriptors open");
            self.agents.iter().try_for_each(Agent::must_run)?;
            std::thread::sleep(LOOK);
        }
        Ok((pages, page_max, descriptors_max))
    }

    /// The most samples of one device that wait at once, in that time.
    fn waiting(&self, time: Duration) -> Result<u64> {
        let begun = Instant::now();
        let mut most = 0;
        while begun.elapsed() < time {
            for agent in &self.agents {
                agent.must_run()?;
                let outbox = agent.told()?.outbox;
                most = most.max(outbox.map_or(0, |outbox| outbox.samples));
            }
        }
        Ok(most)
    }

    /// Has every device send the rest, and counts what was signed and stored.
    fn end(mut self) -> Result<u64> {
        let mut stored = 0;
        for agent in &mut self.agents {
            let mut ledger = Ledger::default();
            ledger.close(agent, &self.plant.hub).with_context(|| agent.name().to_owned())?;
            stored += ledger.stored;
        }
        Ok(stored)
    }
}

/// The id that the hub gave a device, which its files name.
fn device_of(agent: &Agent<'_>) -> Result<String> {
    let path = agent.data().join("identity/identity.json");
    let cannot = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(&path).with_context(cannot)?;
    let record: serde_json::Value = serde_json::from_str(&text).with_context(cannot)?;
    record["device"].as_str().map(str::to_owned).with_context(cannot)
}

/// Lets this process have `descriptors` more than usual.
fn raise(descriptors: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = descriptors.max(current.unwrap_or(descriptors));
    ensure!(
        maximum.is_none_or(|most| most >= wanted),
        "this process may have {maximum:?} descriptors open, but a crowd takes {wanted}"
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .context("cannot raise the limit of open descriptors")
}
