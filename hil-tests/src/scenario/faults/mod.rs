//! Faults, one after another, on one device and its hub: link down, slow and lossy; hub and device
//! killed; both disks full; no memory; a model and an outbox that are damaged.
//!
//! What must hold after each: the device came back by itself; it answered frames all the time that
//! it ran, and every frame is answered or counted as dropped or failed. What must hold at the end:
//! every sample that was ever signed stands at the hub, once; those in a damaged outbox are named
//! as not to come. A power cut is another scenario.
//!
//! A fault that the rig cannot make is skipped, and the reason told.

mod damage;
mod disks;
pub(super) mod ledger;
mod links;

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleetloop_protocol::BundleDigest;
use serde::Serialize;

use crate::fleet::{Agent, AgentStatus, Assets, HubPlace, Plant, Selection, test_bundles};
use crate::pictures::{Part, paths};
use crate::progress::Progress;
use crate::rig::{Ability, Network, Rig, Volume};

use ledger::Ledger;

/// Frames a second, slow enough for any machine.
const RATE_HZ: f64 = 50.0;

/// How many of the frames are sent.
const SENT: f32 = 0.4;

/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(3);

/// How long coming back may take: the longest pause between two connections, and a lease.
const COME_BACK: Duration = Duration::from_secs(120);

/// A fault.
struct Fault {
    name: &'static str,
    needs: &'static [Ability],
    make: fn(&mut Run<'_>) -> Result<()>,
}

/// All of them. Each finds the device running and leaves it so.
const FAULTS: &[Fault] = &[
    Fault { name: "link down", needs: &[Ability::BrokenLink], make: links::down },
    Fault { name: "link slow", needs: &[Ability::BrokenLink], make: links::slow },
    Fault { name: "link lossy", needs: &[Ability::BrokenLink], make: links::lossy },
    Fault { name: "hub killed", needs: &[], make: links::hub_killed },
    Fault { name: "device killed", needs: &[], make: links::device_killed },
    Fault { name: "device's disk full", needs: &[Ability::PowerCut], make: disks::device_full },
    Fault { name: "hub's disk full", needs: &[Ability::PowerCut], make: disks::hub_full },
    Fault { name: "no memory", needs: &[], make: damage::no_memory },
    Fault { name: "damaged model", needs: &[], make: damage::model },
    Fault { name: "damaged outbox", needs: &[], make: damage::outbox },
];

/// What came of the faults.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// The faults that were made.
    pub made: Vec<&'static str>,
    /// Those that were not, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// Samples that were signed.
    pub signed: u64,
    /// Samples at the hub.
    pub stored: u64,
    /// Samples that were signed into an outbox which was damaged before they were sent.
    pub declared_lost: u64,
    /// What happened on the way that could have gone one way or another.
    pub notes: Vec<String>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, skipped, signed, stored, declared_lost, notes } = self;
        writeln!(f, "{} faults: {}", made.len(), made.join(", "))?;
        skipped.iter().try_for_each(|(name, why)| writeln!(f, "skipped: {name}: {why}"))?;
        notes.iter().try_for_each(|note| writeln!(f, "{note}"))?;
        writeln!(f, "{signed} samples signed, {stored} stored, {declared_lost} declared lost")
    }
}

/// A run under way.
struct Run<'r> {
    rig: &'r dyn Rig,
    network: Option<Network>,
    volumes: Option<Volumes>,
    plant: Plant<'r>,
    agent: Agent<'r>,
    ledger: Ledger,
    notes: Vec<String>,
}

struct Volumes {
    device: Volume,
    hub: Volume,
}

/// Makes all faults that the rig can make.
///
/// # Errors
/// When something that must hold does not.
pub fn run(rig: &dyn Rig, assets: &Assets, progress: &dyn Progress) -> Result<Figures> {
    let all = FAULTS.len() + 2;
    progress.stage(1, all, "make a hub and a device that answers");
    let mut run = Run::begin(rig, assets, progress)?;
    let (mut made, mut skipped) = (Vec::new(), Vec::new());
    for (number, fault) in FAULTS.iter().enumerate() {
        progress.stage(number + 2, all, fault.name);
        if let Some(why) = fault.needs.iter().find_map(|ability| rig.lacks(*ability)) {
            progress.note(&format!("skipped: {why}"));
            skipped.push((fault.name, why));
            continue;
        }
        (fault.make)(&mut run).with_context(|| format!("fault '{}'", fault.name))?;
        run.came_back().with_context(|| format!("after fault '{}'", fault.name))?;
        made.push(fault.name);
    }
    progress.stage(all, all, "count");
    let Run { mut agent, plant, mut ledger, notes, .. } = run;
    ledger.close(&mut agent, &plant.hub)?;
    let Ledger { signed, stored, declared_lost, .. } = ledger;
    Ok(Figures { made, skipped, signed, stored, declared_lost, notes })
}

impl<'r> Run<'r> {
    fn begin(rig: &'r dyn Rig, assets: &Assets, progress: &'r dyn Progress) -> Result<Self> {
        let can = |ability| rig.lacks(ability).is_none();
        let network = can(Ability::BrokenLink).then(|| rig.network()).transpose()?;
        let volumes = can(Ability::PowerCut)
            .then(|| Ok::<_, anyhow::Error>((rig.volume("device")?, rig.volume("hub")?)))
            .transpose()?
            .map(|(device, hub)| Volumes { device, hub });
        let mut place = HubPlace::loopback(rig);
        if let Some(network) = &network {
            (place.host, place.listen) = (network.rig.to_string(), network.rig);
        }
        if let Some(volumes) = &volumes {
            place.data = volumes.hub.folder.join("data");
        }
        let folders = test_bundles();
        let plant = Plant::build(rig, assets, progress, &place, &folders, |hub| hub.eager())?;
        let selection = Selection { random_rate: SENT, ..Selection::everything() };
        let mut agent = plant.enrol("agent-1", selection, RATE_HZ, |agent| {
            network.iter().for_each(|network| agent.set_network(network));
            volumes
                .iter()
                .try_for_each(|volumes| agent.set_data(volumes.device.folder.join("data")))
        })?;
        let (images, _) = paths(&assets.fashion_mnist, Part::Test);
        std::fs::copy(images, agent.images()).context("cannot copy pictures for the device")?;
        agent.start()?;
        // Both, so that there is one to go back to.
        for bundle in &plant.bundles {
            plant.roll_out(*bundle, &agent)?;
        }
        let (ledger, notes) = (Ledger::default(), Vec::new());
        let run = Self { rig, network, volumes, plant, agent, ledger, notes };
        run.came_back()?;
        Ok(run)
    }

    /// The model that was rolled out last.
    fn ordered(&self) -> Result<BundleDigest> {
        self.plant.bundles.last().copied().context("there is no model")
    }

    /// Waits until the device answers with the model it should, is connected and has few samples
    /// left; looks at its frames.
    fn came_back(&self) -> Result<()> {
        let ordered = self.ordered()?;
        let few = |status: &AgentStatus| {
            let few = RATE_HZ as u64 * 2;
            status.outbox.is_some_and(|outbox| !outbox.paused && outbox.samples < few)
        };
        let status = self.agent.becomes("come back", COME_BACK, |status| {
            status.answering() == Some(ordered) && status.connected() && few(status)
        })?;
        status.frames().context("it does not run")?.are_accounted_for()
    }

    /// Does something and fails when the device answered no frame meanwhile.
    fn answering<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let answered = || Ok::<_, anyhow::Error>(self.agent.told()?.frames());
        let before = answered()?.context("it does not run")?;
        let done = work(self)?;
        let after = answered()?.context("it does not run")?;
        let more = after.frames_answered.saturating_sub(before.frames_answered);
        ensure!(more > 0, "no frame was answered during the fault: {before:?}, {after:?}");
        after.are_accounted_for()?;
        Ok(done)
    }
}
