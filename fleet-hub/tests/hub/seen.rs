//! What a running hub says of itself.

use fleetloop_protocol::api::ApiAccess;
use fleetloop_protocol::api::status::{Health, HubStatus};
use fleetloop_protocol::topic::{Kind, Topic};
use serde::de::DeserializeOwned;

use crate::rig::Rig;

async fn ask<T: DeserializeOwned>(rig: &Rig, path: &str, token: &str) -> (u16, T) {
    let url = format!("{}{path}", rig.config.admin_url());
    let answer = rig.http().get(url).bearer_auth(token).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_serves_is_healthy_and_counts_what_a_device_sent() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let mut mqtt = device.connect(&rig).await;
    let topic = Topic::new(&device.id, Kind::Sample);
    for _ in 0..2 {
        mqtt.send(&topic, device.sample(0, b"a frame")).await;
        mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    }
    let (code, health): (u16, Health) = ask(&rig, "/healthz", "none").await;
    assert_eq!((code, health), (200, Health { healthy: true, reasons: Vec::new() }));
    let access = std::fs::read_to_string(rig.config.paths.data.join("worker.toml")).unwrap();
    let token = toml::from_str::<ApiAccess>(&access).unwrap().token;
    let (code, status): (u16, HubStatus) = ask(&rig, "/api/v1/status", &token).await;
    assert_eq!((code, status.health.healthy, status.broker_connected), (200, true, true));
    assert_eq!((status.samples.fleet, status.samples.repeated), (1, 1));
    assert_eq!((status.devices_enrolled, status.devices_revoked), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_below_its_disk_floor_is_unwell() {
    let rig = Rig::start_with(|config| config.limits.disk_floor_bytes = u64::MAX / 2).await;
    let (code, health): (u16, Health) = ask(&rig, "/healthz", "none").await;
    assert_eq!((code, health.reasons.len()), (503, 1));
    assert!(health.reasons[0].contains("limits.disk_floor_bytes"), "{health:?}");
}
