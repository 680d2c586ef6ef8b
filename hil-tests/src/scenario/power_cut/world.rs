//! The fleet that is cut off: one hub, one device, three models; each side on a volume of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fleetloop_models::bundle::MANIFEST_FILE;
use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::devices::TokenResponse;
use fleetloop_protocol::api::rollouts::{Phase, Rollout};

use super::ledger::Ledger;
use super::rollouts::Rollouts;
use crate::api::{ApiClient, Local};
use crate::draws::Draws;
use crate::fleet::{
    Agent, Assets, Hub, Selection, Stopped, Waiting, labels, rollout, test_bundles,
};
use crate::pictures::write_noise;
use crate::rig::{Rig, Volume};
use crate::{files, wait};

/// How long anything may take that ends by itself: generous, for a machine that compiles.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// How often the agent's log is looked at: a swap is over in a fraction of a second.
pub(super) const GLANCE: Duration = Duration::from_millis(2);

/// What the device logs: its samples' lives beside what everybody logs.
const LOG: &str = "info,edge_agent::outbox=debug";

/// Pictures the device looks at: those of a minute, and others after each start. A payload that a
/// cut took must not be brought again by another sample.
const PICTURES: u32 = 6000;

/// Pixels a side.
const SIDE: u32 = 28;

/// A hub, a device and their volumes.
pub(super) struct World<'r> {
    pub(super) rig: &'r dyn Rig,
    pub(super) hub: Hub<'r>,
    pub(super) hub_volume: Volume,
    pub(super) agent: Agent<'r>,
    pub(super) agent_volume: Volume,
    pub(super) ledger: Ledger,
    pub(super) rollouts: Rollouts,
    local: Local,
    noise: Draws,
    boots: u32,
}

impl<'r> World<'r> {
    /// Makes and starts all of it; the first model answers when this returns.
    pub(super) fn begin(
        rig: &'r dyn Rig,
        assets: &Assets,
        rate_hz: f64,
        seed: u64,
    ) -> Result<Self> {
        let (hub_volume, agent_volume) = (rig.volume("hub")?, rig.volume("agent")?);
        let mut hub =
            Hub::init_in(rig, hub_volume.folder.join("data"), &labels(&test_bundles()[0])?)?;
        hub.start()?;
        let bundles = bundles(rig.folder(), &hub)?;
        let mut agent = Agent::new(rig, "agent", assets, everything(seed), rate_hz)?;
        agent.set_data(agent_volume.folder.join("data"))?;
        agent.set_log(LOG);
        let mut noise = Draws::new(seed);
        write_noise(&agent.images(), PICTURES, SIDE, &mut noise)?;
        let token: TokenResponse = hub.admin(["device", "add", "agent"])?;
        agent.enrol(&token.token)?;
        let api = ApiClient::open(&hub.access("admin"))?;
        let _: Rollout = hub.admin(["rollout", "start", &bundles[0].to_string()])?;
        let rollouts = first_then_others(&mut agent, api, &bundles, seed)?;
        let local = Local::new()?;
        let ledger = Ledger::default();
        let mut world = Self {
            rig,
            hub,
            hub_volume,
            agent,
            agent_volume,
            ledger,
            rollouts,
            local,
            noise,
            boots: 0,
        };
        world.follow()?;
        world.until_answering()?;
        Ok(world)
    }

    /// Starts the device.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        write_noise(&self.agent.images(), PICTURES, SIDE, &mut self.noise)?;
        self.boots += 1;
        self.agent.set_boot(self.boots);
        self.agent.start()?;
        self.follow()
    }

    fn follow(&mut self) -> Result<()> {
        let process = self.agent.process().context("the agent does not run")?;
        self.ledger.follow(&process.log)
    }

    /// Waits until a model answers, which it does only after it passed its probe; how long it took.
    pub(super) fn until_answering(&self) -> Result<Duration> {
        let begun = Instant::now();
        wait::until("a model to answer", PATIENCE, Duration::from_millis(20), || {
            let status = self.agent.status(&self.local)?;
            Ok((status.state == "answering").then_some(()))
        })
        .or_else(|error| self.agent.must_run().and(Err(error)))?;
        Ok(begun.elapsed())
    }

    /// Waits until the agent's log shows `what`.
    pub(super) fn until(&mut self, what: &str, seen: fn(&Ledger) -> bool) -> Result<()> {
        self.within(PATIENCE, what, seen)
    }

    fn within(&mut self, limit: Duration, what: &str, seen: fn(&Ledger) -> bool) -> Result<()> {
        let (ledger, agent) = (&mut self.ledger, &self.agent);
        wait::until(what, limit, GLANCE, || {
            ledger.read()?;
            Ok(seen(ledger).then_some(()))
        })
        .or_else(|error| agent.must_run().and(Err(error)))
    }

    /// Waits until the device reaches the hub and receipts come. One that waits long for its next
    /// try, because several hubs in a row went dark, is started again.
    pub(super) fn until_flowing(&mut self) -> Result<()> {
        let soon = Duration::from_secs(4);
        if self.within(soon, "the device to connect", |ledger| ledger.life.connected).is_err() {
            self.agent.kill()?;
            self.start_agent()?;
        }
        self.until("receipts", |ledger| ledger.life.connected && ledger.life.receipts > 0)
    }

    /// Lets the device send what it has, and nothing new; then both end in order. Its last words.
    pub(super) fn drain(&mut self) -> Result<Stopped> {
        self.rollouts.end();
        self.agent.stop()?;
        self.agent.set_selection(everything(0).silent())?;
        self.start_agent()?;
        let limit = PATIENCE.max(Duration::from_millis(50 * self.ledger.open() as u64));
        wait::until("the outbox to be empty", limit, Duration::from_millis(50), || {
            let status = self.agent.status(&self.local)?;
            let empty = |waiting: Waiting| waiting.samples + waiting.gaps == 0;
            Ok(status.outbox.is_some_and(empty).then_some(()))
        })?;
        let stopped = self.agent.stop()?;
        self.ledger.read()?;
        self.hub.ask_to_stop()?;
        self.hub.stopped()?;
        Ok(stopped)
    }
}

/// Waits for the first rollout, then has the others follow.
fn first_then_others(
    agent: &mut Agent<'_>,
    api: ApiClient,
    bundles: &[BundleDigest],
    seed: u64,
) -> Result<Rollouts> {
    agent.start()?;
    wait::until("the first model", PATIENCE, Duration::from_millis(50), || {
        agent.must_run()?;
        let all: Vec<Rollout> = api.get("rollouts")?;
        Ok(all.iter().all(|rollout| rollout.phase == Phase::Done).then_some(()))
    })?;
    Rollouts::start(api, bundles.to_vec(), seed)
}

/// Every frame is sent.
fn everything(seed: u64) -> Selection {
    Selection {
        uncertainty_threshold: 1.0,
        random_rate: 1.0,
        budget_bytes_per_hour: 1 << 40,
        burst_bytes: 1 << 40,
        seed,
    }
}

/// Two small models and the first again as a third, brought to the hub and released.
fn bundles(folder: &Path, hub: &Hub<'_>) -> Result<Vec<BundleDigest>> {
    let [first, second] = test_bundles();
    let third = renumbered(&first, &folder.join("linear-3"))?;
    [first, second, third].iter().map(|bundle| rollout::release_unjudged(hub, bundle)).collect()
}

/// The same bundle as version 3.
fn renumbered(from: &Path, to: &Path) -> Result<PathBuf> {
    files::folder(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("no bundle {}", from.display()))? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        let name = path.file_name().unwrap_or_default();
        if name == MANIFEST_FILE {
            let text = String::from_utf8(bytes)?.replacen("version = 1", "version = 3", 1);
            files::replace(&to.join(name), text.as_bytes())?;
        } else {
            files::replace(&to.join(name), &bytes)?;
        }
    }
    Ok(to.to_owned())
}
