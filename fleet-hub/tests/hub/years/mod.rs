//! Ten years of renewals and rotations, in simulated time: a hub in this process over real TLS, with
//! the commands that an admin types, one device that is there each year and one that is away for most.
//!
//! The clocks of hub and devices are set by hand. The broker judges certificates by the system's clock,
//! so devices speak HTTPS only here, and what they would report over MQTT is put into the hub's database;
//! `moves` has the same changes with running agents, today, and `copies` images and copies of a device.

mod copies;
mod moves;

use std::path::Path;
use std::sync::Arc;

use edge_agent::clock::Clock as DeviceClock;
use edge_agent::identity::Identity;
use edge_agent::update::channel::Channel;
use edge_agent::{enroll, home, renew};
use fleet_hub::cli::keys::{self, Command};
use fleet_hub::clock::Clock;
use fleet_hub::release::Repository;
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::keys::KeyName;
use fleetloop_protocol::hub_keys::HubKeyUse;
use fleetloop_protocol::state::{Reported, Update};
use fleetloop_protocol::{ClockState, Generation, UnixMillis};
use tempfile::TempDir;

use crate::rig::Rig;

const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

/// A hub and its time.
struct Years {
    rig: Rig,
    clock: Clock,
    began: UnixMillis,
}

impl Years {
    async fn begin() -> Self {
        let began = Clock::system().now();
        let clock = Clock::manual(began);
        let rig = Rig::start_at(clock.clone(), |_| {}).await;
        Self { rig, clock, began }
    }

    /// So many tenths of a year after the beginning the hub is restarted, as happens.
    async fn year(&mut self, tenths: u64) {
        self.rig.stop().await;
        self.clock.set(UnixMillis(self.began.0 + tenths * YEAR_MS / 10));
        self.rig.restart().await;
        // What the hub does within its first moments.
        let mut repository = Repository::open(&self.rig.config.paths.tuf()).unwrap();
        repository.refresh(self.clock.now()).unwrap();
    }

    /// `fleet-hub key …`, typed by an admin who holds the medium.
    async fn key(&self, command: Command) -> Result<(), String> {
        let (client, output) = (self.rig.admin(), Output::with_json(true));
        let done = Box::pin(keys::run(&client, output, command, &self.clock)).await;
        done.map_err(|error| format!("{error:#}"))
    }

    async fn renew(&self, key: KeyName) {
        let offline_keys = Some(self.rig.dir.path().join("offline"));
        self.key(Command::Renew { key, offline_keys }).await.unwrap();
    }

    async fn rotate(&self, key: KeyName) {
        let offline_keys = Some(self.rig.dir.path().join("offline"));
        self.key(Command::Rotate { key, offline_keys }).await.unwrap();
    }

    async fn retire_ca(&self, why: Option<&str>) -> Result<(), String> {
        let without_waiting = why.map(str::to_owned);
        self.key(Command::Retire { key: KeyName::Ca, without_waiting }).await
    }

    async fn enrol(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let clock = self.device_clock(dir.path());
        enroll::enroll_at(&self.rig.token().await, dir.path(), &clock).await.unwrap();
        dir
    }

    fn device_clock(&self, dir: &Path) -> DeviceClock {
        let file = dir.join("clock.json");
        DeviceClock::manual_over(self.clock.now(), file).unwrap().0
    }

    /// What a device does when it is there: time, metadata, keys, addresses, certificate. Panics if it
    /// is shut out.
    async fn visit(&self, dir: &Path) -> Arc<Identity> {
        let identity = Arc::new(Identity::load(dir).unwrap());
        let clock = self.device_clock(dir);
        let mut channel = Channel::open(dir, &identity, &clock).unwrap();
        let mut refused = Vec::new();
        let fresh = loop {
            match channel.refresh().await {
                Ok(fresh) => break fresh,
                Err(error) => refused.push(format!("{error:?}")),
            }
            // As the agent does beside it: the time may say that the certificate has ended.
            renew::renew(&identity, &clock).await.ok();
            assert!(refused.len() < 5, "shut out: {refused:#?}");
        };
        assert!(fresh.target("hub-addresses.json").is_ok());
        let newest = identity.contacts().known().authorities[0].clone();
        if !identity.tls().borrow().is_signed_by(&newest) {
            renew::renew(&identity, &clock).await.unwrap();
        }
        clock.persist().unwrap();
        self.trusts_what_the_hub_signs(&channel);
        self.is_let_in(&identity, &clock).await;
        identity
    }

    fn trusts_what_the_hub_signs(&self, channel: &Channel) {
        let known = channel.keys().borrow().clone().expect("the hub's keys");
        let pki = &self.rig.state().pki;
        for (usage, key) in
            [(HubKeyUse::Receipt, &pki.receipt), (HubKeyUse::Assignment, &pki.assignment)]
        {
            let ring = known.ring(usage, self.clock.now());
            assert!(ring.get(&key.public().id()).is_some(), "{usage:?}");
        }
    }

    async fn is_let_in(&self, identity: &Identity, clock: &DeviceClock) {
        let config = edge_agent::tls::device_config(identity, clock).unwrap();
        let client = edge_agent::tls::http_client(config).unwrap();
        let nothing = fleetloop_protocol::Digest::of(b"nothing");
        let url = format!("{}/artefacts/{nothing}", self.rig.config.device_url());
        assert_eq!(
            client.get(url).send().await.unwrap().status(),
            404,
            "let in, and it is not there"
        );
    }

    /// What the device would report over MQTT.
    async fn reports(&self, identity: &Identity) {
        let reported = Reported {
            generation: Generation(0),
            start: 1,
            epoch: fleetloop_protocol::Epoch(1),
            agent_version: "test".into(),
            at: self.clock.now(),
            clock: ClockState::Synced,
            running: None,
            update: Update::Idle,
            addresses: identity.contacts().known().generation,
            stopping: false,
        };
        let (id, now) = (identity.device().clone(), self.clock.now());
        let store = &self.rig.state().store;
        let write = move |tx: &rusqlite::Transaction<'_>| {
            fleet_hub::store::devices::set_reported(tx, &id, &reported, now)
        };
        store.write(write).await.unwrap();
    }

    async fn warnings(&self) -> Vec<String> {
        fleet_hub::keys::read(self.rig.state()).await.unwrap();
        self.rig.state().vitals.warnings(self.clock.now())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_years_of_renewals_and_rotations_shut_nobody_out_and_let_nobody_in() {
    let mut years = Years::begin().await;
    let (there, away) = (years.enrol().await, years.enrol().await);
    years.visit(there.path()).await;
    years.visit(away.path()).await;

    years.year(26).await;
    assert!(years.warnings().await.iter().any(|text| text.contains("key renew root")));
    years.renew(KeyName::Root).await;
    assert_eq!(years.warnings().await, Vec::<String>::new());
    years.visit(there.path()).await;

    years.year(35).await;
    for key in [KeyName::Targets, KeyName::Snapshot, KeyName::Timestamp] {
        years.rotate(key).await;
    }
    years.rotate(KeyName::Receipt).await;
    years.rotate(KeyName::Assignment).await;
    assert!(years.warnings().await.iter().any(|text| text.contains("restart")));
    years.visit(there.path()).await;

    years.year(45).await;
    years.visit(there.path()).await;
    years.rotate(KeyName::Root).await;

    years.year(60).await;
    years.visit(there.path()).await;
    years.rotate(KeyName::Ca).await;
    years.year(61).await;
    let identity = years.visit(there.path()).await;
    years.reports(&identity).await;
    let waits = years.retire_ca(None).await.unwrap_err();
    assert!(waits.contains("1 enrolled devices"), "{waits}");
    years.retire_ca(Some("the other one is in a box until year nine")).await.unwrap();
    years.year(62).await;
    years.visit(there.path()).await;

    years.year(73).await;
    years.renew(KeyName::Root).await;
    years.visit(there.path()).await;

    // Its certificate and the CA it knows are gone, its root ended years ago, every key was rotated.
    years.year(95).await;
    years.visit(there.path()).await;
    years.visit(away.path()).await;
    // One that enrols now begins with the newest root.
    let new = years.enrol().await;
    years.visit(new.path()).await;
    assert_eq!(Identity::load(new.path()).unwrap().record().root, {
        let chain = fleet_hub::release::root_chain(&years.rig.config.paths.tuf()).unwrap();
        assert_eq!(chain.len(), 7);
        fleetloop_protocol::Digest::of(&chain[6])
    });
    // A hub with other keys gets no device, whatever it calls itself.
    let other = Years::begin().await;
    let identity = Identity::load(away.path()).unwrap();
    let clock = years.device_clock(away.path());
    let store = edge_agent::update::tuf::TufStore::open(away.path()).unwrap();
    let trusted = store.load(&identity).unwrap();
    let known = identity.contacts().known();
    let lured = home::ask(&identity, &trusted, &clock, &other.rig.config.device_url()).await;
    assert!(lured.is_err(), "{lured:?}");
    assert_eq!(identity.contacts().known(), known);
}
