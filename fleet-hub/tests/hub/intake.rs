//! What becomes of messages.

use std::time::Duration;

use fleet_hub::cli::client::{Client, ClientError};
use fleetloop_protocol::api::samples::Sample;
use fleetloop_protocol::gap::{Gap, GapReason};
use fleetloop_protocol::keys::{KeyRing, SigningKey};
use fleetloop_protocol::limits::MESSAGE_BYTES;
use fleetloop_protocol::receipt::{RefusalReason, Subject};
use fleetloop_protocol::sample::Payload;
use fleetloop_protocol::state::{Assignment, Desired, Reported, Update};
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::{
    BundleDigest, ClockState, Digest, Epoch, Generation, Sequence, Signed, UnixMillis, Verified,
    wire,
};

use crate::device::{Device, PATIENCE, picture};
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_comes_only_after_row_and_payload_are_on_disk() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let mut mqtt = device.connect(&rig).await;
    // While somebody else holds the database's write lock, nothing can be committed.
    let blocker = rig.database();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    mqtt.send(&Topic::new(&device.id, Kind::Sample), device.sample(0, b"a frame")).await;
    let payload = rig.state().payloads.clone();
    let written = async {
        while !payload.exists(Digest::of(&picture(b"a frame"))).await.unwrap() {
            // The connection must be polled for the message to leave.
            mqtt.hears(&device.id, Kind::Receipt, Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the payload was never written");
    assert!(!mqtt.hears(&device.id, Kind::Receipt, Duration::from_millis(500)).await);
    blocker.execute_batch("ROLLBACK").unwrap();
    let (receipt, bytes) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    let stored: (Vec<u8>, Vec<u8>, i64) = rig
        .database()
        .query_row("SELECT sample, receipt, epoch FROM sample", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(stored, (receipt.digest.as_bytes().to_vec(), bytes, -6));
    assert!(matches!(receipt.subject, Subject::Sample(id) if id.sequence == Sequence(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_trusted_sample_is_refused_in_words_and_blocks_nothing() {
    let rig = Rig::start().await;
    let (device, other) = (rig.enrol().await, rig.enrol().await);
    let mut mqtt = device.connect(&rig).await;
    let topic = Topic::new(&device.id, Kind::Sample);

    let good = device.sample(0, b"payload of a frame");
    let mut altered_payload = device.sample_message(1, b"payload of a frame");
    altered_payload.payload = Payload::Inline(b"payload of another".to_vec());
    let mut altered_header = device.sample_message(2, b"payload of a frame");
    let middle = altered_header.envelope.len() / 2;
    altered_header.envelope[middle] ^= 1;
    let forger = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
    let mut forged = rig.enrol().await;
    forged.id = device.id.clone();
    forged.signing = forger;
    let mut unknown_version = good.clone();
    unknown_version[0] = 99;
    let mut trailing = good.clone();
    trailing.push(0);

    let cases: Vec<(&str, Vec<u8>, RefusalReason)> = vec![
        ("altered payload", wire::encode(&altered_payload).unwrap(), RefusalReason::NotTrusted),
        ("altered header", wire::encode(&altered_header).unwrap(), RefusalReason::NotTrusted),
        (
            "signed by another device's key, in its name",
            other.sample(3, b"x"),
            RefusalReason::NotTrusted,
        ),
        (
            "signed by another key, in this device's name",
            forged.sample(4, b"x"),
            RefusalReason::NotTrusted,
        ),
        ("unknown version byte", unknown_version, RefusalReason::UnknownVersion),
        ("trailing bytes", trailing, RefusalReason::Malformed),
        ("no bytes", Vec::new(), RefusalReason::Malformed),
        (
            "noise",
            vec![1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            RefusalReason::Malformed,
        ),
        ("over the limit", vec![1; MESSAGE_BYTES + 1], RefusalReason::TooLarge),
    ];
    for (what, message, reason) in cases {
        let digest = Digest::of(&message);
        mqtt.send(&topic, message).await;
        let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
        assert_eq!(
            (refusal.reason, refusal.message),
            (reason, digest),
            "{what}: {}",
            refusal.detail
        );
    }
    // A telemetry message that is none is refused as well.
    mqtt.send(&Topic::new(&device.id, Kind::Telemetry), b"junk".to_vec()).await;
    mqtt.refusal(&device.id, &rig.receipt_keys()).await;
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 0);
    assert_eq!(rig.count("SELECT value FROM counter WHERE name = 'refused'"), 10);
    assert_eq!(rig.count("SELECT value FROM counter WHERE name = 'refused.too_large'"), 1);
    mqtt.send(&topic, good).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_sample_gets_the_same_receipt_byte_for_byte_through_a_restart_too() {
    let mut rig = Rig::start().await;
    let device = rig.enrol().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let message = device.sample(0, b"x");
    let mut mqtt = device.connect(&rig).await;
    mqtt.send(&topic, message.clone()).await;
    let (_, first) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    mqtt.send(&topic, message.clone()).await;
    let (_, second) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_eq!(first, second);
    rig.stop().await;
    rig.serve().await;
    let mut mqtt = device.connect(&rig).await;
    mqtt.send(&topic, message).await;
    let (_, third) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_eq!(first, third);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 1);
    assert_eq!(rig.count("SELECT value FROM counter WHERE name = 'repeated'"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_identity_with_another_digest_is_quarantined_and_replaces_nothing() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let mut mqtt = device.connect(&rig).await;
    mqtt.send(&topic, device.sample(0, b"one")).await;
    let (receipt, _) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    for _ in 0..2 {
        mqtt.send(&topic, device.sample(0, b"two")).await;
        let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
        assert_eq!(refusal.reason, RefusalReason::Conflict);
        assert_eq!(refusal.retry_after_s, None);
    }
    let stored: Vec<u8> =
        rig.database().query_row("SELECT sample FROM sample", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, receipt.digest.as_bytes());
    assert_eq!(rig.count("SELECT count(*) FROM quarantine"), 1);
    assert_eq!(rig.count("SELECT value FROM counter WHERE name = 'quarantined'"), 1);
    let alarms = "SELECT count(*) FROM audit WHERE action = 'sample.quarantine'";
    assert_eq!(rig.count(alarms), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_samples_in_flight_are_each_stored_once_and_answered() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let mut mqtt = device.connect(&rig).await;
    for sequence in 0..400 {
        mqtt.send(&topic, device.sample(sequence, &sequence.to_be_bytes())).await;
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 400 {
        let (receipt, _) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
        let Subject::Sample(id) = receipt.subject else { panic!("not a sample") };
        answered.insert(id.sequence);
    }
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_sample_once_while_more_come_in() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let mut mqtt = device.connect(&rig).await;
    let client = Client::open(&rig.config.paths.data.join("admin.toml")).unwrap();
    let (mut seen, mut before) = (Vec::new(), String::new());
    for sequence in 0..30 {
        mqtt.send(&topic, device.sample(sequence, &sequence.to_be_bytes())).await;
        mqtt.receipt(&device.id, &rig.receipt_keys()).await;
        if sequence < 20 {
            continue;
        }
        let path = format!("/samples?group=fleet&limit=3{before}");
        let page: Vec<Sample> = client.get("list samples", &path).await.unwrap();
        if let Some(last) = page.last() {
            before = format!("&before={}", last.sample);
        }
        seen.extend(page.into_iter().map(|sample| sample.id.unwrap().sequence.0));
    }
    let first_page_and_older: Vec<u64> = (0..=20).rev().collect();
    assert_eq!(seen, first_page_and_older);
    let unknown = format!("/samples?before={}", Digest::of(b"nothing"));
    let refused = client.get::<Vec<Sample>>("list samples", &unknown).await.unwrap_err();
    let ClientError::Refused { status, source, .. } = refused else { panic!("{refused}") };
    assert!(status == 404 && source.to_string().contains("sample list"), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_backlog_a_sample_is_refused_for_now_and_stored_later() {
    let rig = Rig::start_with(|config| config.limits.backlog_messages = 1).await;
    let device = rig.enrol().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let mut mqtt = device.connect(&rig).await;
    let blocker = rig.database();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    mqtt.send(&topic, device.sample(0, b"x")).await;
    mqtt.send(&topic, device.sample(1, b"y")).await;
    let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
    assert_eq!(refusal.reason, RefusalReason::Busy);
    assert!(refusal.retry_after_s.is_some());
    blocker.execute_batch("ROLLBACK").unwrap();
    let (first, _) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    mqtt.send(&topic, device.sample(1, b"y")).await;
    let (second, _) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_ne!(first.digest, second.digest);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_stored_with_a_receipt_and_a_contradicting_one_is_quarantined() {
    let rig = Rig::start().await;
    let (device, other) = (rig.enrol().await, rig.enrol().await);
    let topic = Topic::new(&device.id, Kind::Gap);
    let mut mqtt = device.connect(&rig).await;
    let mut gap = Gap {
        device: device.id.clone(),
        epoch: Epoch(u64::MAX),
        from: Sequence(3),
        to: Sequence(9),
        before: Digest::of(b"before"),
        after: Digest::of(b"after"),
        reason: GapReason::OutboxFull,
    };
    let seal = |gap: &Gap| Signed::seal(gap, &device.id, &device.signing).unwrap().into_bytes();
    mqtt.send(&topic, seal(&gap)).await;
    let (receipt, first) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    let subject = Subject::Gap { epoch: Epoch(u64::MAX), from: Sequence(3), to: Sequence(9) };
    assert_eq!(receipt.subject, subject);
    mqtt.send(&topic, seal(&gap)).await;
    assert_eq!(mqtt.receipt(&device.id, &rig.receipt_keys()).await.1, first);
    gap.after = Digest::of(b"something else");
    mqtt.send(&topic, seal(&gap)).await;
    let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
    assert_eq!(refusal.reason, RefusalReason::Conflict);
    gap.device = other.id.clone();
    mqtt.send(&topic, seal(&gap)).await;
    let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
    assert_eq!(refusal.reason, RefusalReason::NotTrusted);
    assert_eq!(rig.count("SELECT count(*) FROM gap"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_an_older_generation_is_answered_with_the_order_again() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let order = fleet_hub::store::desired::DesiredRow {
        generation: Generation(1),
        at: UnixMillis(5),
        assignment: Some(Assignment {
            target: "m/1/bundle.toml".into(),
            bundle: BundleDigest(Digest::of(b"bundle")),
        }),
    };
    let (id, given) = (device.id.clone(), order.clone());
    rig.state()
        .store
        .write(move |tx| fleet_hub::store::desired::give(tx, &id, &given))
        .await
        .unwrap();
    let mut events = rig.state().events.subscribe();
    let mut mqtt = device.connect(&rig).await;
    let report = |generation| report(&device, generation);
    mqtt.send(&Topic::new(&device.id, Kind::Reported), report(0)).await;
    let bytes = mqtt.next(&device.id, Kind::Desired).await;
    let usage = fleetloop_protocol::hub_keys::HubKeyUse::Assignment;
    let ring = rig.keys.ring(usage, rig.state().clock.now());
    let desired = Verified::<Desired>::open(&bytes, &device.id, &ring).unwrap().into_inner();
    assert_eq!((desired.generation, desired.assignment), (order.generation, order.assignment));
    assert!(matches!(
        events.recv().await,
        Ok(fleet_hub::HubEvent::Reported { device: who, .. }) if who == device.id
    ));
    // One that is up to date gets nothing.
    mqtt.send(&Topic::new(&device.id, Kind::Reported), report(1)).await;
    assert!(!mqtt.hears(&device.id, Kind::Desired, Duration::from_millis(300)).await);
    let version = "SELECT agent_version FROM device WHERE reported IS NOT NULL";
    let version: String = rig.database().query_row(version, [], |row| row.get(0)).unwrap();
    assert_eq!(version, "9.9");
}

/// What a device says that has an order of this generation and does nothing.
fn report(device: &Device, generation: u64) -> Vec<u8> {
    let reported = Reported {
        generation: Generation(generation),
        start: 1,
        epoch: Epoch(1),
        agent_version: "9.9".into(),
        at: UnixMillis(1),
        clock: ClockState::Unsynced,
        running: None,
        update: Update::Idle,
        addresses: 0,
        stopping: false,
    };
    Signed::seal(&reported, &device.id, &device.signing).unwrap().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_reports_that_come_together_the_last_one_counts() {
    const DEVICES: i64 = 12;
    const REPORTS: u64 = 48;
    let mut rig = Rig::start().await;
    for _ in 0..DEVICES {
        let device = rig.enrol().await;
        let mut mqtt = device.connect(&rig).await;
        for generation in 1..=REPORTS {
            mqtt.send(&Topic::new(&device.id, Kind::Reported), report(&device, generation)).await;
        }
        // The connection must be polled for them to leave.
        assert!(!mqtt.hears(&device.id, Kind::Desired, Duration::from_millis(500)).await);
    }
    rig.stop().await;
    let last = format!("reported ->> '$.generation' = {REPORTS}");
    assert_eq!(rig.count(&format!("SELECT count(*) FROM device WHERE {last}")), DEVICES);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_telemetry_is_kept_and_the_device_counts_as_seen() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let mut events = rig.state().events.subscribe();
    let mut mqtt = device.connect(&rig).await;
    let telemetry = Telemetry { frames_in: 42, ..Telemetry::default() };
    let bytes = Signed::seal(&telemetry, &device.id, &device.signing).unwrap().into_bytes();
    mqtt.send(&Topic::new(&device.id, Kind::Telemetry), bytes).await;
    let stored = async {
        loop {
            if let Ok(fleet_hub::HubEvent::TelemetryStored { .. }) = events.recv().await {
                return;
            }
        }
    };
    let polled = mqtt.hears(&device.id, Kind::Desired, PATIENCE);
    // The connection must be polled for the message to leave.
    tokio::select! {
        () = stored => {}
        _ = polled => panic!("nothing was stored"),
    }
    let id = device.id.clone();
    let row = rig
        .state()
        .store
        .read(move |connection| fleet_hub::store::devices::get(connection, &id))
        .await
        .unwrap();
    assert_eq!(row.telemetry, Some(telemetry));
    assert!(row.last_seen.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_signed_by_the_receipt_key_only() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let mut mqtt = device.connect(&rig).await;
    mqtt.send(&Topic::new(&device.id, Kind::Sample), device.sample(0, b"x")).await;
    let bytes = mqtt.next(&device.id, Kind::Receipt).await;
    let usage = fleetloop_protocol::hub_keys::HubKeyUse::Assignment;
    let wrong: KeyRing = rig.keys.ring(usage, rig.state().clock.now());
    assert!(
        Verified::<fleetloop_protocol::receipt::Receipt>::open(&bytes, &device.id, &wrong).is_err()
    );
}
