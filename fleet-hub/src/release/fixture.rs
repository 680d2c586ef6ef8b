//! A hub without listeners, for tests: real store, real repository, a clock that stands still.

use std::sync::Arc;

use fleetloop_models::bundle::{
    Description, Fit, InputSpec, Lineage, Manifest, OutputKind, PreprocessSpec, Role,
};
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use fleetloop_protocol::api::labels::LabelSet;
use fleetloop_protocol::api::models::ReleaseRequest;
use fleetloop_protocol::api::reports::{Output, Report};
use fleetloop_protocol::sample::MediaType;
use fleetloop_protocol::state::{Desired, Reported, Update};
use fleetloop_protocol::{
    BundleDigest, ClockState, DeviceId, Digest, Epoch, Generation, UnixMillis,
};
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, watch};

use crate::clock::Clock;
use crate::config::Config;
use crate::pki::Pki;
use crate::published::Documents;
use crate::quota::Quotas;
use crate::state::DesiredPublisher;
use crate::status::Vitals;
use crate::store::Store;
use crate::store::labels as label_rows;
use crate::store::payloads::Blobs;
use crate::store::uploads::Uploads;
use crate::{AppState, HubEvent};

/// When tests begin.
pub const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A hub, and what would be its devices' and workers' ends.
pub struct Hub {
    pub dir: TempDir,
    pub state: AppState,
    pub orders: mpsc::Receiver<(DeviceId, Desired)>,
    pub stop: watch::Sender<bool>,
}

impl Hub {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let clock = Clock::manual(NOW);
        let artefacts = Blobs::open("artefact", &data.join("artefacts"), 0).unwrap();
        let config = config(&data);
        let pki = Pki::create(&config, NOW).unwrap();
        let own = Documents::first(&config, &pki, NOW);
        let offline = dir.path().join("offline");
        super::init_repository(&config.paths, &offline, &own, &artefacts, &clock).await.unwrap();
        let (state, orders, stop) = open(&data, clock);
        let known = LabelSet { labels: labels() };
        state.store.write(move |tx| label_rows::extend(tx, &known, "t")).await.unwrap();
        Self { dir, state, orders, stop }
    }

    /// The same hub after its process ended and started again.
    pub fn restarted(self) -> Self {
        let Self { dir, state, orders, stop } = self;
        let clock = state.clock.clone();
        drop((state, orders, stop));
        let (state, orders, stop) = open(&dir.path().join("data"), clock);
        Self { dir, state, orders, stop }
    }

    pub async fn enrol(&self, id: &str) -> DeviceId {
        let device: DeviceId = id.parse().unwrap();
        let name = device.to_string();
        self.state
            .store
            .write(move |tx| {
                tx.execute(
                    "INSERT INTO device (id, name, state, signing_key, certificate_pem,
                     certificate_ends_ms, agent_version, enrolled_at_ms)
                     VALUES (?1, ?1, 'enrolled', ?2, '', 0, '0', 0)",
                    rusqlite::params![name, [7_u8; 32]],
                )?;
                Ok(())
            })
            .await
            .unwrap();
        device
    }

    /// Stores what a device says, as ingestion does, and says so.
    pub async fn report(
        &self,
        device: &DeviceId,
        generation: Generation,
        running: Option<BundleDigest>,
        update: Update,
    ) {
        let reported = Reported {
            generation,
            start: 1,
            epoch: Epoch(1),
            agent_version: "0".into(),
            at: NOW,
            clock: ClockState::Synced,
            running,
            update,
            addresses: 0,
            stopping: false,
        };
        let (json, id) = (serde_json::to_string(&reported).unwrap(), device.to_string());
        let now = crate::store::as_sql(self.state.clock.now().0);
        self.state
            .store
            .write(move |tx| {
                tx.execute(
                    "UPDATE device SET reported = ?2, last_seen_ms = ?3 WHERE id = ?1",
                    rusqlite::params![id, json, now],
                )?;
                Ok(())
            })
            .await
            .unwrap();
        self.state.tell(HubEvent::Reported { device: device.clone(), reported });
    }

    pub async fn put(&self, bytes: impl Into<Vec<u8>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.state.artefacts.put(digest, bytes.into()).await.unwrap();
        digest
    }

    /// Uploads a bundle as a worker does.
    pub async fn bundle(&self, name: &str, version: u32, lineage: Option<Lineage>) -> BundleDigest {
        self.bundle_of(about(name, version, lineage)).await
    }

    /// The same of another description.
    pub async fn bundle_of(&self, about: Description) -> BundleDigest {
        let model = graph(&format!("{} {}", about.name, about.version));
        let golden = b"{}".to_vec();
        let manifest = manifest(about, &model, &golden);
        self.put(model).await;
        self.put(golden).await;
        BundleDigest(self.put(manifest.to_toml().unwrap()).await)
    }

    /// Uploads, imports and releases a bundle.
    pub async fn released(&self, name: &str, version: u32) -> BundleDigest {
        let bundle = self.bundle(name, version, None).await;
        crate::registry::import(&self.state, bundle, "admin").await.unwrap();
        super::release(&self.state, without_gate(bundle), "admin").await.unwrap();
        bundle
    }

    /// Freezes a dataset of two groups, as `dataset freeze` does.
    pub async fn dataset(&self) -> (Digest, Dataset) {
        let item = |i: u16, split, group: &str| Item {
            sample: Digest::of(&i.to_le_bytes()),
            payload: Digest::of(&[i.to_le_bytes(), i.to_le_bytes()].concat()),
            media_type: MediaType::Png,
            label: i % 2,
            split,
            group: group.into(),
        };
        let mut items: Vec<_> = (0..200).map(|i| item(i, Split::Gate, "import:a")).collect();
        items.extend((200..300).map(|i| item(i, Split::Gate, "fleet")));
        items.extend((300..310).map(|i| item(i, Split::Train, "fleet")));
        items.sort_by_key(|item| item.sample);
        let dataset = Dataset { name: "d".into(), labels: labels(), items };
        (self.put(serde_json::to_vec(&dataset).unwrap()).await, dataset)
    }
}

fn config(data: &std::path::Path) -> Config {
    Config::parse(
        data,
        "hosts = [\"localhost\"]\nadmin_listen = \"127.0.0.1:1\"\ndevice_listen = \"127.0.0.1:2\"\n\
         mqtt_listen = \"127.0.0.1:3\"\n",
    )
    .unwrap()
}

fn open(
    data: &std::path::Path,
    clock: Clock,
) -> (AppState, mpsc::Receiver<(DeviceId, Desired)>, watch::Sender<bool>) {
    let config = config(data);
    let (desired, orders) = DesiredPublisher::channel();
    let (stop, stopping) = watch::channel(false);
    let payloads = Blobs::open("payload", &data.join("payloads"), 0).unwrap();
    let state = AppState {
        pki: Pki::load(&config.paths).unwrap().shared(),
        vitals: Vitals::new(
            config.limits.backlog_messages,
            crate::listeners::gate::Gate::new(1024, &config.limits.connections),
        ),
        quotas: Quotas::new(&config.limits),
        store: Store::open(data).unwrap(),
        uploads: Uploads::open(&data.join("uploads"), &config.limits, payloads.clone()).unwrap(),
        config: Arc::new(config),
        payloads,
        artefacts: Blobs::open("artefact", &data.join("artefacts"), 0).unwrap(),
        clock,
        watch: crate::door::Watch::default(),
        last_use: crate::last_use::LastUse::default(),
        events: broadcast::channel(64).0,
        desired,
        stopping,
    };
    (state, orders, stop)
}

/// An ONNX file with a graph of that name and nothing in it.
pub fn graph(name: &str) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let len = u8::try_from(bytes.len()).ok().filter(|len| *len < 0x80).unwrap();
        [&[number << 3 | 2, len][..], bytes].concat()
    };
    let value = |name: &[u8]| {
        // A tensor of floats, of any shape.
        let kind = field(2, &field(1, &[0x08, 1]));
        [field(1, name), kind].concat()
    };
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")].concat();
    let parts = [
        field(1, &node),
        field(2, name.as_bytes()),
        field(11, &value(b"x")),
        field(12, &value(b"y")),
    ];
    // Operator set 17.
    [field(7, &parts.concat()), field(8, &[0x10, 17])].concat()
}

pub fn without_gate(bundle: BundleDigest) -> ReleaseRequest {
    let without_gate = Some("a test".into());
    ReleaseRequest { bundle, channel: "dev".into(), without_gate, accept_few: false }
}

pub fn labels() -> Vec<String> {
    vec!["a".into(), "b".into()]
}

pub fn manifest(about: Description, model: &[u8], golden: &[u8]) -> Manifest {
    let files = [(Role::Model, model.to_vec()), (Role::Golden, golden.to_vec())].into();
    Manifest::new(about, &files).unwrap()
}

pub fn about(name: &str, version: u32, lineage: Option<Lineage>) -> Description {
    Description {
        name: name.into(),
        version,
        labels: labels(),
        output: OutputKind::Logits,
        input: InputSpec { name: "x".into(), channels: 1, height: 28, width: 28 },
        preprocess: PreprocessSpec { fit: Fit::Stretch, mean: vec![0.5], std: vec![0.5] },
        lineage,
    }
}

/// A report on all gate items, the first `wrong` of each group wrong.
pub fn report(bundle: BundleDigest, digest: Digest, dataset: &Dataset, wrong: usize) -> Report {
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    let outputs = dataset.items.iter().filter(|item| item.split == Split::Gate).map(|item| {
        let nth = seen.entry(item.group.as_str()).or_default();
        *nth += 1;
        let right = *nth > wrong;
        let first = (item.label == 0) == right;
        let probabilities = if first { vec![0.9, 0.1] } else { vec![0.1, 0.9] };
        let (sample, label, group) = (item.sample, item.label, item.group.clone());
        Output { sample, label, group, probabilities }
    });
    Report { bundle, dataset: digest, runtime: "test 1".into(), outputs: outputs.collect() }
}
