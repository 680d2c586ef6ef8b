//! What is taken back: labels withdrawn, samples removed.

use axum::http::StatusCode;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{DatasetSummary, FreezeRequest, Split};
use fleetloop_protocol::api::labels::{ClearRequest, LabelQueue, LabelRequest};
use fleetloop_protocol::api::samples::{RemoveRequest, Sample, SampleCounts};
use fleetloop_protocol::sample::Selection;

use super::testing::{Hub, NOW, picture};
use crate::store::{audit, labels, removal};

const UNSURE: Selection = Selection::Uncertain { score: 0.8 };

async fn label(hub: &Hub, sample: Digest, label: &str) -> StatusCode {
    let request = LabelRequest { sample, label: label.into() };
    hub.post("/api/v1/labels", &request).await.status
}

async fn clear(hub: &Hub, samples: &[Digest]) -> Vec<Sample> {
    let request = ClearRequest { samples: samples.to_vec() };
    hub.post("/api/v1/labels/clear", &request).await.json()
}

async fn remove(hub: &Hub, samples: &[Digest]) -> Vec<Sample> {
    let request = RemoveRequest { samples: samples.to_vec(), reason: "shows a person".into() };
    hub.post("/api/v1/samples/remove", &request).await.json()
}

async fn queue(hub: &Hub) -> LabelQueue {
    hub.get("/api/v1/labels/queue").await.json()
}

async fn payload(hub: &Hub, bytes: &[u8]) -> u16 {
    hub.get(&format!("/api/v1/payloads/{}", Digest::of(bytes))).await.status.as_u16()
}

fn column<T: rusqlite::types::FromSql>(hub: &Hub, sql: &str) -> T {
    let database = rusqlite::Connection::open(hub.state.store.path()).unwrap();
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_label_that_is_cleared_is_none_and_its_history_stays() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    let sample = hub.sample(&mut device, &picture(1), UNSURE).await;
    label(&hub, sample, "boot").await;
    assert_eq!(queue(&hub).await.waiting, 0);
    for _ in 0..2 {
        assert_eq!(clear(&hub, &[sample]).await[0].label, None);
    }
    assert_eq!(queue(&hub).await.waiting, 1, "the picture is asked for again");
    let counts: SampleCounts = hub.get("/api/v1/sample-counts").await.json();
    assert_eq!(counts.fleet_labelled, 0);
    let unlabelled: Vec<Sample> = hub.get("/api/v1/samples?labelled=false").await.json();
    assert_eq!(unlabelled.len(), 1);
    let (history, lines) = hub
        .state
        .store
        .read(move |c| Ok((labels::history(c, sample)?, audit::last(c, 1)?)))
        .await
        .unwrap();
    let told: Vec<_> = history.iter().map(|g| g.label.as_deref()).collect();
    assert_eq!(told, [None, Some("boot")], "cleared once, though asked twice");
    assert_eq!((lines[0].action.as_str(), lines[0].who.as_str()), ("label.clear", "alice"));
    assert!(lines[0].detail.contains("was boot, by alice"), "{lines:?}");
    assert_eq!(label(&hub, sample, "bag").await, StatusCode::OK, "it can be labelled again");
    let unknown = ClearRequest { samples: vec![sample, Digest::ZERO] };
    hub.post("/api/v1/labels/clear", &unknown).await.error(404);
    let still: Sample = hub.get(&format!("/api/v1/samples/{sample}")).await.json();
    assert_eq!(still.label.as_deref(), Some("bag"), "all of them or none");
}

#[tokio::test]
async fn a_removed_sample_loses_its_picture_and_keeps_its_proof() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    let sample = hub.sample(&mut device, &picture(1), UNSURE).await;
    let kept = hub.sample(&mut device, &picture(2), UNSURE).await;
    for one in [sample, kept] {
        label(&hub, one, "boot").await;
    }
    hub.import(Split::Gate, 9, &["boot"]).await;
    let freeze = FreezeRequest { name: "d".into(), gate_share: 0.0, groups: vec![] };
    let before: DatasetSummary = hub.post("/api/v1/datasets", &freeze).await.json();
    assert_eq!(before.train, 2);

    let removed = remove(&hub, &[sample]).await;
    let tombstone = removed[0].removed.as_ref().unwrap();
    assert_eq!((tombstone.by.as_str(), tombstone.at_ms), ("alice", NOW.0));
    assert_eq!(tombstone.reason, "shows a person");
    assert_eq!((removed[0].label.as_ref(), removed[0].predictions.len()), (None, 0));
    assert_eq!(payload(&hub, &picture(1)).await, 410);
    assert!(!hub.state.payloads.exists(Digest::of(&picture(1))).await.unwrap());
    assert_eq!(payload(&hub, &picture(2)).await, 200);

    let proof = "SELECT length(envelope) > 100 AND receipt = CAST('receipt' AS BLOB)
        AND salt IS NULL FROM sample WHERE removed_at_ms IS NOT NULL";
    assert!(column::<bool>(&hub, proof));
    assert_eq!(label(&hub, sample, "bag").await, StatusCode::CONFLICT);
    let after: DatasetSummary = hub.post("/api/v1/datasets", &freeze).await.json();
    assert_eq!(after.train, 1);
    let path = format!("/api/v1/datasets/{}/removed", before.digest);
    assert_eq!(hub.get(&path).await.json::<Vec<Digest>>(), [sample]);
    let lines = hub.state.store.read(|c| audit::last(c, 9)).await.unwrap();
    let line = lines.iter().find(|line| line.action == "sample.remove").unwrap();
    assert_eq!((line.object.clone(), line.detail.as_str()), (sample.to_string(), "shows a person"));
    let counts: SampleCounts = hub.get("/api/v1/sample-counts").await.json();
    assert_eq!((counts.fleet, counts.removed, counts.fleet_labelled), (2, 1, 1));

    let again = remove(&hub, &[sample]).await;
    assert_eq!(again, removed, "removing again changes nothing");
    let unreasoned = RemoveRequest { samples: vec![kept], reason: " ".into() };
    hub.post("/api/v1/samples/remove", &unreasoned).await.error(400);
    let unknown = RemoveRequest { samples: vec![kept, Digest::ZERO], reason: "x".into() };
    hub.post("/api/v1/samples/remove", &unknown).await.error(404);
    assert_eq!(payload(&hub, &picture(2)).await, 200, "all of them or none");
}

#[tokio::test]
async fn a_picture_that_several_samples_show_goes_with_the_last_of_them() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    let first = hub.sample(&mut device, &picture(1), UNSURE).await;
    let second = hub.sample(&mut device, &picture(1), UNSURE).await;
    remove(&hub, &[first]).await;
    assert_eq!(payload(&hub, &picture(1)).await, 200);
    remove(&hub, &[second]).await;
    assert_eq!(payload(&hub, &picture(1)).await, 410);
    // Somebody else's sample of the same picture brings it back, and only that one counts.
    hub.sample(&mut device, &picture(1), UNSURE).await;
    assert_eq!(payload(&hub, &picture(1)).await, 200);
    assert_eq!(queue(&hub).await.waiting, 1);
}

#[tokio::test]
async fn what_a_crash_left_unerased_is_erased_at_the_next_start_unless_it_is_needed_again() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    let gone = hub.sample(&mut device, &picture(1), UNSURE).await;
    let back = hub.sample(&mut device, &picture(2), UNSURE).await;
    hub.state
        .store
        .write(move |tx| removal::remove(tx, &[gone, back], "a test", "alice", NOW))
        .await
        .unwrap();
    // The hub was killed here; before it came to the files a sample of the second picture came.
    hub.sample(&mut device, &picture(2), UNSURE).await;
    removal::erase_due(&hub.state.store, &hub.state.payloads, NOW).await.unwrap();
    assert!(!hub.state.payloads.exists(Digest::of(&picture(1))).await.unwrap());
    assert!(hub.state.payloads.exists(Digest::of(&picture(2))).await.unwrap());
    assert_eq!(column::<i64>(&hub, "SELECT count(*) FROM erasure"), 0);
}
