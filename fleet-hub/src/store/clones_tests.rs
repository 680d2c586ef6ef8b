//! A cloned device and one that was restored from an image, through the API.

use fleetloop_protocol::api::datasets::{FreezeRequest, Frozen};
use fleetloop_protocol::api::devices::{Device, EpochSummary, KeepRequest};
use fleetloop_protocol::api::findings::Finding;
use fleetloop_protocol::api::labels::LabelRequest;
use fleetloop_protocol::sample::Selection;
use fleetloop_protocol::state::{Reported, Update};
use fleetloop_protocol::{ClockState, DeviceId, Digest, Epoch, Generation, UnixMillis};

use crate::api::testing::{Hub, NOW, picture};
use crate::store::devices;

const RANDOM: Selection = Selection::Random { rate: 0.1 };

/// A start of the agent reports, that many minutes from now on.
async fn reports(hub: &Hub, device: &DeviceId, start: u64, epoch: u64, minute: u64) {
    let reported = Reported {
        generation: Generation(0),
        start,
        epoch: Epoch(epoch),
        agent_version: "0".into(),
        at: NOW,
        clock: ClockState::Synced,
        running: None,
        update: Update::Idle,
        addresses: 0,
        stopping: false,
    };
    let (id, at) = (device.clone(), UnixMillis(NOW.0 + minute * 60_000));
    let stored = hub.state.store.write(move |tx| devices::set_reported(tx, &id, &reported, at));
    stored.await.unwrap();
}

async fn label(hub: &Hub, sample: Digest, label: &str) {
    let request = LabelRequest { sample, label: label.into() };
    assert_eq!(hub.post("/api/v1/labels", &request).await.status, 200);
}

async fn freeze(hub: &Hub) -> Frozen {
    let request = FreezeRequest { name: "d".into(), gate_share: 0.5, groups: vec![] };
    hub.post("/api/v1/datasets", &request).await.json()
}

async fn epochs(hub: &Hub) -> Vec<EpochSummary> {
    hub.get("/api/v1/devices/dev-a/epochs").await.json()
}

/// The open findings about who speaks.
async fn kinds(hub: &Hub) -> Vec<String> {
    let all: Vec<Finding> = hub.get("/api/v1/findings").await.json();
    let ours = |kind: &String| kind == "clone" || kind == "epoch.new";
    all.into_iter().map(|finding| finding.kind).filter(ours).collect()
}

/// A hub with a device and eight labelled samples of its first epoch.
async fn rig() -> (Hub, crate::api::testing::Device) {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    for shade in 0..8 {
        let sample = hub.sample(&mut device, &picture(shade), RANDOM).await;
        label(&hub, sample, "boot").await;
    }
    (hub, device)
}

#[tokio::test]
async fn samples_of_a_cloned_device_are_stored_and_in_no_dataset_until_an_operator_decides() {
    let (hub, mut device) = rig().await;
    reports(&hub, &device.id, 1, 1, 0).await;
    assert_eq!(freeze(&hub).await.held, 0);
    // The rows of the rig are stored at the same moment, so the copy appears a minute later.
    for minute in 0..6 {
        reports(&hub, &device.id, 1 + minute % 2, 1, 1 + minute).await;
    }
    let shown: Device = hub.get("/api/v1/devices/dev-a").await.json();
    assert_eq!(shown.cloned_since_ms, Some(NOW.0 + 2 * 60_000), "when the copy was first heard");
    assert_eq!(kinds(&hub).await, ["clone"]);

    device.epoch = Epoch(2);
    for shade in 100..104 {
        let sample = hub.sample(&mut device, &picture(shade), RANDOM).await;
        label(&hub, sample, "bag").await;
    }
    let frozen = freeze(&hub).await;
    assert_eq!((frozen.held, frozen.dataset.train + frozen.dataset.gate), (4, 8));
    let held: Vec<(u64, u64)> = epochs(&hub).await.iter().map(|e| (e.samples, e.held)).collect();
    assert_eq!(held, [(8, 0), (4, 4)]);

    // The operator finds the copy, stops it, and keeps what it sent: it stood at the same machine.
    let path = "/api/v1/devices/dev-a/epochs";
    let unknown = KeepRequest { epochs: Some(vec!["00".into()]) };
    assert_eq!(hub.post(path, &unknown).await.error(404).code, "not_found");
    let keep = KeepRequest { epochs: Some(vec![epochs(&hub).await[1].epoch.clone()]) };
    assert_eq!(hub.post(path, &keep).await.status, 200);
    let frozen = freeze(&hub).await;
    assert_eq!((frozen.held, frozen.dataset.train + frozen.dataset.gate), (0, 12));
    assert!(kinds(&hub).await.is_empty(), "the finding is acknowledged");
    let shown: Device = hub.get("/api/v1/devices/dev-a").await.json();
    assert_eq!((shown.cloned_since_ms, shown.samples_held), (None, 0));
    let sample = hub.sample(&mut device, &picture(200), RANDOM).await;
    label(&hub, sample, "bag").await;
    assert_eq!(freeze(&hub).await.held, 0, "what comes from now on counts");
}

#[tokio::test]
async fn what_an_operator_drops_never_counts_and_what_came_before_the_copy_always_does() {
    let (hub, mut device) = rig().await;
    for minute in 0..6 {
        reports(&hub, &device.id, 1 + minute % 2, 1, 1 + minute).await;
    }
    let sample = hub.sample(&mut device, &picture(100), RANDOM).await;
    label(&hub, sample, "bag").await;
    let none = KeepRequest { epochs: Some(vec![]) };
    assert_eq!(hub.post("/api/v1/devices/dev-a/epochs", &none).await.status, 200);
    let frozen = freeze(&hub).await;
    assert_eq!((frozen.held, frozen.dataset.train + frozen.dataset.gate), (1, 8));
    let all = KeepRequest { epochs: None };
    assert_eq!(hub.post("/api/v1/devices/dev-a/epochs", &all).await.status, 200);
    assert_eq!(freeze(&hub).await.held, 1, "a decision is not undone");
}

#[tokio::test]
async fn a_device_restored_from_an_image_gets_a_notice_and_its_samples_count() {
    let (hub, mut device) = rig().await;
    for (start, epoch) in [(1, 1), (2, 1), (2, 2), (2, 2), (3, 2)] {
        reports(&hub, &device.id, start, epoch, 10 * start + epoch).await;
    }
    device.epoch = Epoch(2);
    let sample = hub.sample(&mut device, &picture(100), RANDOM).await;
    label(&hub, sample, "bag").await;
    let frozen = freeze(&hub).await;
    assert_eq!((frozen.held, frozen.dataset.train + frozen.dataset.gate), (0, 9));
    assert_eq!(kinds(&hub).await, ["epoch.new"]);
}
