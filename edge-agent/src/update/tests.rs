//! Updates against a real TLS server, real TUF metadata and the real ONNX Runtime.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetloop_models::bundle::{Bundle, Manifest, Role};
use fleetloop_models::session::{Runtime, Threads};
use fleetloop_protocol::hub_keys::{HUB_KEYS_TARGET, HubKey, HubKeyUse, HubKeys};
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::state::{Assignment, Desired, Update};
use fleetloop_protocol::{BundleDigest, Digest, Generation, UnixMillis};
use tokio::sync::watch;

use super::bundles::{Bundles, Installed};
use super::driver::{Driver, Handle, Progress};
use super::error::{Retry, UpdateError};
use super::http::HubHttp;
use super::models::{ModelHost, Models, NotSwapped};
use super::order::{Order, OrderStore};
use super::tuf::TufError;
use super::tuf::testing::{ChannelKeys, Edition, LATER, NOW, PAST, publish, sign};
use crate::chain::chain;
use crate::clock::Clock;
use crate::durable;
use crate::identity::Identity;
use crate::infer::open;
use crate::proof::Proof;
use crate::shutdown::Shutdown;
use crate::testing::{TestHub, clock};

mod cuts;
mod loops;

/// Proves bundles with the real runtime; a frame is answered the moment they are proven.
#[derive(Clone)]
struct Host {
    runtime: Runtime,
    running: watch::Sender<Option<BundleDigest>>,
    swaps: Arc<AtomicU32>,
    /// Bundles whose swap never comes back: the agent ends in it.
    deadly: Arc<Mutex<Vec<BundleDigest>>>,
    /// Bundles whose trial never ends by itself.
    endless: Arc<Mutex<Vec<BundleDigest>>>,
    /// Such trials that were begun.
    tried: Arc<AtomicU32>,
}

impl Host {
    fn new() -> Self {
        let runtime = Runtime::load(None).unwrap();
        let running = watch::Sender::new(None);
        let (swaps, deadly, endless) = Default::default();
        Self { runtime, running, swaps, deadly, endless, tried: Arc::default() }
    }
}

impl ModelHost for Host {
    async fn prove(&self, bundle: BundleDigest, _: &Path) -> Result<Proof, NotSwapped> {
        if self.endless.lock().unwrap().contains(&bundle) {
            self.tried.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        Ok(Proof::unsafe_without())
    }

    async fn swap(&self, bundle: Bundle, _: &Path, proof: Proof) -> Result<(), NotSwapped> {
        self.swaps.fetch_add(1, Ordering::SeqCst);
        if self.deadly.lock().unwrap().contains(&bundle.digest()) {
            std::future::pending::<()>().await;
        }
        open(&self.runtime, Threads(1), &bundle, &proof, None).map_err(|error| NotSwapped {
            bundle: bundle.digest(),
            retry: Retry::Never,
            is_untried: false,
            source: Box::new(error),
        })?;
        self.running.send_replace(Some(bundle.digest()));
        Ok(())
    }

    fn running(&self) -> watch::Receiver<Option<BundleDigest>> {
        self.running.subscribe()
    }
}

/// A bundle as the hub has it.
struct Files {
    manifest: Vec<u8>,
    model: Vec<u8>,
    golden: Vec<u8>,
}

impl Files {
    fn fixture(version: u32) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../models/tests/data/linear-{version}"));
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
        Self {
            manifest: read("bundle.toml"),
            model: read("model.onnx"),
            golden: read("golden.json"),
        }
    }

    fn digest(&self) -> BundleDigest {
        BundleDigest(Digest::of(&self.manifest))
    }

    /// The same with a manifest that was changed, and right digests of the files.
    fn changed(mut self, change: impl FnOnce(&mut Manifest)) -> Self {
        let mut manifest = Manifest::parse(&self.manifest).unwrap();
        change(&mut manifest);
        for file in &mut manifest.files {
            let bytes = if file.role == Role::Model { &self.model } else { &self.golden };
            (file.len_bytes, file.sha256) = (bytes.len() as u64, Digest::of(bytes));
        }
        self.manifest = manifest.to_toml().unwrap().into_bytes();
        self
    }
}

/// One device and its hub.
struct Rig {
    hub: TestHub,
    dir: tempfile::TempDir,
    clock: Clock,
    keys: ChannelKeys,
    root: Vec<u8>,
    edition: u64,
}

struct Running {
    handle: Handle,
    stop: watch::Sender<Shutdown>,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    async fn new() -> Self {
        let (clock, _) = clock();
        let keys = ChannelKeys::new();
        let root = sign(keys.root(1, LATER), &[&keys.root]);
        let hub = TestHub::start(root.clone()).await;
        let dir = tempfile::tempdir().unwrap();
        crate::enroll::enroll_at(&hub.token(), dir.path(), &clock).await.unwrap();
        Self { hub, dir, clock, keys, root, edition: 0 }
    }

    fn identity(&self) -> Identity {
        Identity::load(self.dir.path()).unwrap()
    }

    fn http(&self) -> HubHttp {
        HubHttp::new(&self.identity(), &self.clock).unwrap()
    }

    fn bundles(&self) -> Bundles {
        Bundles::new(self.dir.path())
    }

    /// Releases the bundles under those names in the next edition.
    async fn release(&mut self, bundles: &[(&str, &Files)]) {
        self.edition += 1;
        self.release_as(Edition::of(self.edition), bundles).await;
    }

    async fn release_as(&self, edition: Edition<'_>, bundles: &[(&str, &Files)]) {
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let keys = HubKeys {
            keys: vec![HubKey {
                public_key: key.public(),
                usage: HubKeyUse::Receipt,
                not_before: UnixMillis(0),
                not_after: UnixMillis(u64::MAX),
            }],
        };
        let keys = serde_json::to_vec(&keys).unwrap();
        let mut targets: Vec<(&str, &[u8])> = vec![(HUB_KEYS_TARGET, &keys)];
        self.hub.add_artefact(&keys);
        for (name, files) in bundles {
            targets.push((name, &files.manifest));
            for bytes in [&files.manifest, &files.model, &files.golden] {
                self.hub.add_artefact(bytes);
            }
        }
        let metadata = publish(&self.keys, &self.root, edition, &targets).await;
        self.hub.lock().tuf = metadata;
    }

    fn models(&self, host: &Host) -> Models<Host> {
        Models::open(self.dir.path(), host.clone()).unwrap()
    }

    fn open(
        &self,
        running: watch::Receiver<Option<BundleDigest>>,
    ) -> Result<(Driver, Handle), UpdateError> {
        Driver::open(self.dir.path(), &Arc::new(self.identity()), &self.clock, running)
    }

    fn start(&self, host: &Host) -> Running {
        let models = self.models(host);
        let (driver, handle) = self.open(models.running()).unwrap();
        let (stop, signal) = crate::shutdown::channel();
        let task = tokio::spawn(driver.run(models, signal));
        Running { handle, stop, task }
    }
}

impl Running {
    async fn order(&self, generation: u64, target: &str, bundle: BundleDigest) {
        let assignment = Some(Assignment { target: target.to_owned(), bundle });
        let desired = Desired { generation: Generation(generation), at: NOW, assignment };
        self.handle.orders.send(desired).await.unwrap();
    }

    /// Waits until the updater says so.
    async fn until(&self, what: impl Fn(&Progress) -> bool) -> Progress {
        let mut progress = self.handle.progress.clone();
        let wait = progress.wait_for(|progress| what(progress));
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("in time").unwrap().clone()
    }

    async fn installed(&self, generation: u64) {
        self.until(|p| p.generation.0 == generation && p.update == Update::Idle).await;
    }

    async fn failed(&self, generation: u64) -> String {
        let done = |p: &Progress| {
            p.generation.0 == generation && matches!(p.update, Update::Failed { .. })
        };
        match self.until(done).await.update {
            Update::Failed { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn stop(self) {
        self.stop.send_replace(Shutdown::Now);
        self.task.await.unwrap();
    }
}

const ONE: &str = "linear/1/bundle.toml";
const TWO: &str = "linear/2/bundle.toml";

#[tokio::test]
async fn an_order_brings_a_released_bundle_to_answer_and_keeps_the_one_before() {
    let mut rig = Rig::new().await;
    let (one, two) = (Files::fixture(1), Files::fixture(2));
    rig.release(&[(ONE, &one)]).await;
    let host = Host::new();
    let running = rig.start(&host);
    running.order(1, ONE, one.digest()).await;
    running.installed(1).await;
    assert!(running.handle.keys.borrow().is_some(), "the hub's keys came with the release");
    rig.release(&[(ONE, &one), (TWO, &two)]).await;
    running.order(2, TWO, two.digest()).await;
    running.installed(2).await;
    let installed = rig.bundles().installed().unwrap();
    assert_eq!((installed.current, installed.previous), (Some(two.digest()), Some(one.digest())));

    // Back to the one before: nothing is fetched but metadata.
    rig.hub.asked();
    running.order(3, ONE, one.digest()).await;
    running.installed(3).await;
    let asked = rig.hub.asked();
    assert!(asked.iter().all(|(path, _)| path.starts_with("/tuf/")), "{asked:?}");
    assert_eq!(*host.running.borrow(), Some(one.digest()));
    running.stop().await;

    // A restart needs no hub.
    rig.hub.lock().tuf.clear();
    let again = Host::new();
    let running = rig.start(&again);
    again.running.subscribe().wait_for(|now| *now == Some(one.digest())).await.unwrap();
    assert!(running.handle.keys.borrow().is_some(), "the hub's keys are known at once");
    running.stop().await;
}

#[tokio::test]
async fn a_bundle_that_cannot_be_trusted_is_refused_with_the_reason_and_the_old_one_answers_on() {
    let mut rig = Rig::new().await;
    let (one, two) = (Files::fixture(1), Files::fixture(2));
    let host = Host::new();
    let running = rig.start(&host);
    rig.release(&[(ONE, &one)]).await;
    running.order(1, ONE, one.digest()).await;
    running.installed(1).await;

    // The order names another digest than the channel.
    rig.release(&[(ONE, &one), (TWO, &two)]).await;
    running.order(2, TWO, BundleDigest(Digest::of(b"else"))).await;
    let reason = running.failed(2).await;
    assert!(reason.contains("the order names"), "{reason}");

    // The manifest calls itself another version than the target.
    rig.release(&[(ONE, &one), ("linear/3/bundle.toml", &two)]).await;
    running.order(3, "linear/3/bundle.toml", two.digest()).await;
    let reason = running.failed(3).await;
    assert!(reason.contains("calls itself linear/2/bundle.toml"), "{reason}");

    // A file's bytes are not the ones that the manifest names.
    rig.release(&[(ONE, &one), (TWO, &two)]).await;
    let mut altered = two.model.clone();
    altered[100] ^= 1;
    rig.hub.lock().artefacts.insert(Digest::of(&two.model), altered);
    running.order(4, TWO, two.digest()).await;
    let reason = running.failed(4).await;
    assert!(reason.contains("its bytes have SHA-256"), "{reason}");

    // The golden cases are another model's.
    let golden =
        Files { golden: two.golden.clone(), ..Files::fixture(1) }.changed(|m| m.version = 5);
    rig.release(&[(ONE, &one), ("linear/5/bundle.toml", &golden)]).await;
    running.order(5, "linear/5/bundle.toml", golden.digest()).await;
    let reason = running.failed(5).await;
    assert!(reason.contains("golden"), "{reason}");

    // The graph takes another input than the manifest says.
    let shape = Files::fixture(1).changed(|m| (m.version, m.input.height) = (6, 14));
    rig.release(&[(ONE, &one), ("linear/6/bundle.toml", &shape)]).await;
    running.order(6, "linear/6/bundle.toml", shape.digest()).await;
    let reason = running.failed(6).await;
    assert!(reason.contains("cannot load bundle"), "{reason}");

    // The channel's targets are signed by somebody else.
    rig.keys = ChannelKeys::new();
    rig.root = sign(rig.keys.root(1, LATER), &[&rig.keys.root]);
    rig.release(&[(ONE, &one), (TWO, &two)]).await;
    running.order(7, TWO, two.digest()).await;
    let reason = running.failed(7).await;
    assert!(reason.contains("signatures do not meet the threshold"), "{reason}");

    assert_eq!(*host.running.borrow(), Some(one.digest()), "the old one answers on");
    let kept = Installed { current: Some(one.digest()), previous: None };
    assert_eq!(rig.bundles().installed().unwrap(), kept);
    running.stop().await;
}

#[tokio::test]
async fn what_was_given_up_is_reported_after_a_restart_and_not_tried_again() {
    let mut rig = Rig::new().await;
    let bad = Files { golden: Files::fixture(2).golden, ..Files::fixture(1) }.changed(|_| {});
    rig.release(&[(ONE, &bad)]).await;
    let host = Host::new();
    let running = rig.start(&host);
    running.order(4, ONE, bad.digest()).await;
    let reason = running.failed(4).await;
    running.stop().await;

    let host = Host::new();
    let running = rig.start(&host);
    assert_eq!(running.failed(4).await, reason);
    running.order(4, ONE, bad.digest()).await;
    running.order(3, TWO, bad.digest()).await;
    // An order of its own shows that the two before it were taken and changed nothing.
    let desired = Desired { generation: Generation(5), at: NOW, assignment: None };
    running.handle.orders.send(desired).await.unwrap();
    running.installed(5).await;
    assert_eq!(host.swaps.load(Ordering::SeqCst), 0);
    running.stop().await;
}

#[tokio::test]
async fn expired_metadata_installs_nothing_and_is_given_up_after_a_few_tries() {
    let rig = Rig::new().await;
    let one = Files::fixture(1);
    rig.release_as(Edition { timestamp_expires: PAST, ..Edition::of(1) }, &[(ONE, &one)]).await;
    let host = Host::new();
    let running = rig.start(&host);
    running.order(1, ONE, one.digest()).await;
    let told = running.until(|p| p.generation.0 == 1 && p.problem.is_some()).await;
    assert!(told.problem.as_ref().unwrap().contains("expired"), "{told:?}");
    assert_eq!(told.update, Update::Installing { bundle: one.digest() });
    running.stop().await;
    let asked = rig.hub.asked();
    assert!(!asked.iter().any(|(path, _)| path.starts_with("/artefacts/")), "{asked:?}");

    let (mut driver, handle) = rig.open(host.running()).unwrap();
    let expired = UpdateError::Tuf(TufError::Expired {
        file: "timestamp.json".into(),
        expired_at: UnixMillis(1),
        now: NOW,
    });
    for _ in 0..5 {
        driver.failed(&expired, true);
        assert!(matches!(handle.progress.borrow().update, Update::Installing { .. }));
    }
    driver.failed(&expired, true);
    assert!(matches!(handle.progress.borrow().update, Update::Failed { .. }));
    assert_eq!(host.swaps.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nothing_is_fetched_while_the_hubs_time_is_not_believed() {
    let mut rig = Rig::new().await;
    let one = Files::fixture(1);
    rig.release(&[(ONE, &one)]).await;
    rig.clock.synced(UnixMillis(NOW.0 + 86_400_000)).unwrap();
    rig.clock.unsynced();
    rig.hub.asked();
    let running = rig.start(&Host::new());
    running.order(1, ONE, one.digest()).await;
    let told = running.until(|p| p.generation.0 == 1 && p.problem.is_some()).await;
    assert!(told.problem.as_ref().unwrap().contains("clock is not synced"), "{told:?}");
    assert_eq!(rig.hub.asked(), [], "neither metadata nor artefacts were asked for");
    running.stop().await;
}

#[tokio::test]
async fn a_newer_order_ends_the_fetching_of_an_older_one() {
    let mut rig = Rig::new().await;
    let (one, two) = (Files::fixture(1), Files::fixture(2));
    rig.release(&[(ONE, &one), (TWO, &two)]).await;
    rig.hub.lock().hanging = vec![Digest::of(&one.model)];
    let host = Host::new();
    let running = rig.start(&host);
    running.order(1, ONE, one.digest()).await;
    running.until(|p| p.generation.0 == 1).await;
    running.order(2, TWO, two.digest()).await;
    running.installed(2).await;
    assert_eq!(*host.running.borrow(), Some(two.digest()));
    running.stop().await;
}

#[tokio::test]
async fn a_newer_order_replaces_one_that_is_being_tried_before_and_after_a_restart() {
    let mut rig = Rig::new().await;
    let (one, two) = (Files::fixture(1), Files::fixture(2));
    rig.release(&[(ONE, &one), (TWO, &two)]).await;
    let endless = || {
        let host = Host::new();
        host.endless.lock().unwrap().push(one.digest());
        host
    };
    let is_tried = async |host: &Host| {
        let tried = async {
            while host.tried.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), tried).await.expect("in time");
    };
    let host = endless();
    let running = rig.start(&host);
    running.order(1, ONE, one.digest()).await;
    is_tried(&host).await;
    // Known already, or older: the trial goes on.
    running.order(1, ONE, one.digest()).await;
    running.stop().await;

    // The stored order is tried again, and the newer one takes its place at once.
    let host = endless();
    let running = rig.start(&host);
    is_tried(&host).await;
    running.order(2, TWO, two.digest()).await;
    running.installed(2).await;
    assert_eq!(*host.running.borrow(), Some(two.digest()));
    assert_eq!(host.tried.load(Ordering::SeqCst), 1);
    running.stop().await;
}

#[test]
fn a_full_disk_is_told_apart_and_tried_again() {
    let full = durable::DurableError::io(
        "write",
        std::path::Path::new("/data/x"),
        std::io::Error::from(std::io::ErrorKind::StorageFull),
    );
    let error = UpdateError::from(full);
    assert!(matches!(error, UpdateError::DiskFull { .. }), "{error}");
    assert_eq!(error.retry(), Retry::AFewTimes);
    assert!(chain(&error).contains("make room"), "{error}");
}

#[tokio::test]
async fn a_device_without_the_hubs_keys_waits_between_its_attempts_however_often_it_is_asked() {
    // A hub that publishes nothing; each of its messages is untrusted and asks for a refresh.
    let rig = Rig::new().await;
    let running = rig.start(&Host::new());
    running.until(|progress| progress.problem.is_some()).await;
    for _ in 0..200 {
        running.handle.refresh.notify_one();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asked = rig.hub.asked();
    let attempts = asked.iter().filter(|(path, _)| path == "/tuf/dev/2.root.json").count();
    assert!((1..=6).contains(&attempts), "{attempts} attempts in a second: {asked:?}");
    running.stop().await;
}
