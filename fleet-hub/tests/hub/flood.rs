//! A device that sends without end, beside ones that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fleetloop_protocol::topic::{Kind, Topic};

use crate::device::PATIENCE;
use crate::rig::Rig;

/// What the flooding device sends in all.
const FLOOD: u64 = 700;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_over_its_quota_is_slowed_and_nobody_waits_for_it() {
    let rig = Rig::start_with(|config| {
        config.limits.device_messages_per_s = 20;
        config.limits.device_messages_burst = 40;
    })
    .await;
    let (flooding, good) = (rig.enrol().await, rig.enrol().await);
    let (topic, keys) = (Topic::new(&flooding.id, Kind::Sample), rig.receipt_keys());
    let mut flood = flooding.connect(&rig).await;
    for sequence in 0..FLOOD {
        flood.send(&topic, flooding.sample(sequence, &sequence.to_be_bytes())).await;
    }
    let answered = Arc::new(AtomicU64::new(0));
    let (counted, flooding_id, flood_keys) = (answered.clone(), flooding.id.clone(), keys.clone());
    let flood = tokio::spawn(async move {
        loop {
            flood.receipt(&flooding_id, &flood_keys).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    while answered.load(Ordering::Relaxed) < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // The flood would take half a minute; a device within its quota gets all of its receipts meanwhile.
    let mut mqtt = good.connect(&rig).await;
    for sequence in 0..30 {
        mqtt.send(&Topic::new(&good.id, Kind::Sample), good.sample(sequence, &[7])).await;
        mqtt.receipt(&good.id, &keys).await;
    }
    let drops = rig.state().quotas.drops();
    assert!(answered.load(Ordering::Relaxed) < FLOOD, "it was not slowed");
    assert!(drops.total_slowed() > 0);
    assert!(drops.total().values().all(|count| *count == 0), "{:?}", drops.total());
    let found = format!(
        "SELECT count(*) FROM finding WHERE kind = 'quota.drop' AND device = '{}'",
        flooding.id
    );
    let told = async {
        while rig.count(&found) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("it is no finding");
    assert_eq!(rig.count("SELECT count(*) FROM finding WHERE kind = 'quota.drop'"), 1);
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_and_a_connection_are_not_held_up_by_the_quota() {
    let rig = Rig::start_with(|config| {
        config.limits.device_messages_per_s = 1;
        config.limits.device_messages_burst = 1;
    })
    .await;
    let device = rig.enrol().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let mut session = device.connect(&rig).await;
    for sequence in 0..300 {
        session.send(&topic, device.sample(sequence, &[1])).await;
    }
    session.receipt(&device.id, &rig.receipt_keys()).await;
    rig.revoke(&device.id).await;
    tokio::time::timeout(PATIENCE, session.ended()).await.expect("it was not kicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_devices_evidence_never_evicts_anothers_and_its_audit_lines_are_bounded() {
    let rig = Rig::start_with(|config| {
        config.limits.device_quarantine_rows = 3;
        config.limits.device_audit_rows = 4;
    })
    .await;
    let (noisy, quiet) = (rig.enrol().await, rig.enrol().await);
    let keys = rig.receipt_keys();
    let mut sessions = Vec::new();
    for device in [&quiet, &noisy] {
        let mut mqtt = device.connect(&rig).await;
        let topic = Topic::new(&device.id, Kind::Sample);
        mqtt.send(&topic, device.sample(0, b"stored")).await;
        mqtt.receipt(&device.id, &keys).await;
        sessions.push((mqtt, topic));
    }
    for (at, device, forks) in [(0, &quiet, 1u8), (1, &noisy, 12)] {
        let (mqtt, topic) = &mut sessions[at];
        for fork in 0..forks {
            mqtt.send(topic, device.sample(0, &[fork])).await;
            mqtt.refusal(&device.id, &keys).await;
        }
    }
    let rows = |sql: &str, device: &fleetloop_protocol::DeviceId| {
        rig.database().query_row(sql, [device.as_str()], |row| row.get::<_, i64>(0)).unwrap()
    };
    let quarantined = "SELECT count(*) FROM quarantine WHERE device = ?1";
    assert_eq!((rows(quarantined, &quiet.id), rows(quarantined, &noisy.id)), (1, 3));
    let audited = "SELECT count(*) FROM audit WHERE who = ?1";
    // Enrolled, and what follows; the last says that there are no more.
    assert_eq!(rows(audited, &noisy.id), 5);
    let last = "SELECT count(*) FROM audit WHERE who = ?1 AND action = 'device.audit-limit'";
    assert_eq!((rows(last, &quiet.id), rows(last, &noisy.id)), (0, 1));
    assert_eq!(rig.count("SELECT value FROM counter WHERE name = 'quarantined'"), 13);
    assert!(rig.state().quotas.drops().total()["audit_line"] > 0);
}
