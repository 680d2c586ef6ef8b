//! The API through its router, over the real store.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, DatasetSummary, FreezeRequest, Split};
use fleetloop_protocol::api::devices::{Device, DeviceState, ReplaceRequest};
use fleetloop_protocol::api::labels::{LabelQueue, LabelRequest, LabelSet};
use fleetloop_protocol::api::samples::Sample;
use fleetloop_protocol::sample::Selection;

use super::datasets::is_gate;
use super::testing::{Hub, NOW, picture};
use crate::store::{audit, labels};

const UNSURE: Selection = Selection::Uncertain { score: 0.8 };

fn label(sample: Digest, label: &str) -> LabelRequest {
    LabelRequest { sample, label: label.into() }
}

#[tokio::test]
async fn no_token_and_an_unknown_token_are_401_and_a_wrong_role_is_403() {
    let hub = Hub::new().await;
    let bare = Request::builder().uri("/api/v1/devices").body(Body::empty()).unwrap();
    assert_eq!(hub.send(bare).await.error(401).code, "unauthorized");
    let unknown = hub.ask(Method::GET, "fleethub1_x", "/api/v1/devices", Body::empty()).await;
    assert_eq!(unknown.error(401).code, "unauthorized");
    let zero = Digest::ZERO;
    // Each endpoint of this part, who may call it, and that the answer is no refusal for them.
    for (method, path, annotator, worker) in [
        (Method::GET, "/devices".to_owned(), false, false),
        (Method::POST, "/devices/tokens".into(), false, false),
        (Method::GET, "/devices/dev-a".into(), false, false),
        (Method::POST, "/devices/dev-a/revoke".into(), false, false),
        (Method::POST, "/devices/dev-a/replace".into(), false, false),
        (Method::GET, "/devices/dev-a/epochs".into(), false, false),
        (Method::POST, "/devices/dev-a/epochs".into(), false, false),
        (Method::GET, "/drift".into(), true, false),
        (Method::GET, "/samples".into(), true, false),
        (Method::GET, format!("/samples/{zero}"), true, false),
        (Method::GET, "/sample-counts".into(), true, false),
        (Method::GET, "/imports".into(), false, false),
        (Method::POST, "/imports".into(), false, false),
        (Method::POST, "/imports/missing".into(), false, false),
        (Method::POST, "/imports/pictures".into(), false, false),
        (Method::POST, "/imports/1/remove".into(), false, false),
        (Method::POST, "/samples/remove".into(), false, false),
        (Method::POST, "/labels/clear".into(), true, false),
        (Method::GET, format!("/datasets/{zero}/removed"), false, true),
        (Method::GET, format!("/payloads/{zero}"), true, true),
        (Method::GET, "/labels/queue".into(), true, false),
        (Method::POST, "/labels".into(), true, false),
        (Method::GET, "/labels/set".into(), true, true),
        (Method::PUT, "/labels/set".into(), false, false),
        (Method::GET, "/datasets".into(), true, true),
        (Method::POST, "/datasets".into(), false, false),
        (Method::GET, format!("/datasets/{zero}"), false, true),
        (Method::PUT, format!("/artefacts/{zero}"), false, true),
        (Method::GET, format!("/artefacts/{zero}"), false, true),
        (Method::GET, "/backup".into(), false, false),
        (Method::GET, "/tokens".into(), false, false),
        (Method::POST, "/tokens".into(), false, false),
        (Method::POST, "/tokens/tok-aaaaaaaa/rotate".into(), false, false),
        (Method::POST, "/tokens/tok-aaaaaaaa/revoke".into(), false, false),
    ] {
        let path = format!("/api/v1{path}");
        for (token, may) in [(&hub.annotator, annotator), (&hub.worker, worker)] {
            let answer = hub.ask(method.clone(), token, &path, Body::from("[]")).await;
            if may {
                assert!(![401, 403].contains(&answer.status.as_u16()), "{method} {path}");
            } else {
                assert_eq!(answer.error(403).code, "forbidden", "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn every_error_is_an_api_error() {
    let hub = Hub::new().await;
    assert_eq!(hub.get("/api/v1/nothing").await.error(404).code, "not_found");
    assert_eq!(hub.get("/api/v1/samples/abc").await.error(400).code, "invalid");
    assert_eq!(hub.get("/api/v1/samples?limit=x").await.error(400).code, "invalid");
    let wrong = hub.ask(Method::DELETE, &hub.admin, "/api/v1/devices", Body::empty()).await;
    assert_eq!(wrong.error(405).code, "method");
    let text = hub.ask(Method::POST, &hub.admin, "/api/v1/labels", Body::from("{")).await;
    assert_eq!(text.error(400).code, "invalid");
    let missing = hub.post("/api/v1/labels", &label(Digest::ZERO, "boot")).await.error(404);
    assert!(missing.message.contains("sample list"), "{missing}");
    let large = Body::from(vec![b' '; 17 << 20]);
    let large = hub.ask(Method::POST, &hub.admin, "/api/v1/labels", large).await;
    assert_eq!(large.error(413).code, "too_large");
}

#[tokio::test]
async fn a_relabel_supersedes_and_keeps_the_history() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    let sample = hub.sample(&mut device, &picture(1), UNSURE).await;
    let as_anna = |label: LabelRequest| {
        let body = Body::from(serde_json::to_vec(&label).unwrap());
        hub.ask(Method::POST, &hub.annotator, "/api/v1/labels", body)
    };
    let first: Sample = as_anna(label(sample, "boot")).await.json();
    assert_eq!(first.label.as_deref(), Some("boot"));
    let again: Sample = as_anna(label(sample, "boot")).await.json();
    assert_eq!(again, first);
    let second: Sample = hub.post("/api/v1/labels", &label(sample, "bag")).await.json();
    assert_eq!(second.label.as_deref(), Some("bag"));
    let (history, lines) = hub
        .state
        .store
        .read(move |c| Ok((labels::history(c, sample)?, audit::last(c, 2)?)))
        .await
        .unwrap();
    let told: Vec<_> = history.iter().map(|g| (g.label.as_deref(), g.by.as_str(), g.at)).collect();
    assert_eq!(told, [(Some("bag"), "alice", NOW), (Some("boot"), "anna", NOW)]);
    assert_eq!(lines[0].action, "label.set");
    assert!(lines[0].detail.contains("was boot, by anna"), "{lines:?}");
    let refused = as_anna(label(sample, "sock")).await.error(400);
    assert!(refused.message.contains("label names"), "{refused}");
}

#[tokio::test]
async fn the_queue_holds_what_is_unlabelled_and_shrinks_as_labels_come() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    let mut scores = Vec::new();
    for (shade, score) in [(1, 0.5), (2, 0.9), (3, 0.7)] {
        let chosen = Selection::Uncertain { score };
        scores.push((hub.sample(&mut device, &picture(shade), chosen).await, score));
    }
    hub.import(Split::Train, 9, &["boot"]).await;
    let queue: LabelQueue = hub.get("/api/v1/labels/queue?limit=2").await.json();
    assert_eq!((queue.samples.len(), queue.waiting, queue.labels.len()), (2, 3, 3));
    assert_eq!(queue.samples[0].sample, scores[1].0);
    assert_eq!(queue.samples[1].sample, scores[2].0);
    hub.post("/api/v1/labels", &label(scores[1].0, "coat")).await;
    let queue: LabelQueue = hub.get("/api/v1/labels/queue").await.json();
    assert_eq!(queue.waiting, 2);
    assert!(queue.samples.iter().all(|sample| sample.sample != scores[1].0));
}

#[tokio::test]
async fn a_picture_that_was_sent_many_times_is_asked_for_once() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    let mut samples = Vec::new();
    for (shade, selection) in
        [(1, UNSURE), (1, Selection::Random { rate: 0.1 }), (1, UNSURE), (2, UNSURE)]
    {
        samples.push(hub.sample(&mut device, &picture(shade), selection).await);
    }
    let queue: LabelQueue = hub.get("/api/v1/labels/queue").await.json();
    assert_eq!((queue.samples.len(), queue.waiting), (2, 2));
    hub.post("/api/v1/labels", &label(samples[0], "coat")).await;
    let queue: LabelQueue = hub.get("/api/v1/labels/queue").await.json();
    let left: Vec<_> = queue.samples.iter().map(|sample| sample.sample).collect();
    assert_eq!((left, queue.waiting), (vec![samples[3]], 1));
}

#[tokio::test]
async fn a_label_is_never_removed_or_moved() {
    let hub = Hub::new().await;
    let put = |labels: &[&str]| {
        let set = LabelSet { labels: labels.iter().map(|l| (*l).to_owned()).collect() };
        let body = Body::from(serde_json::to_vec(&set).unwrap());
        hub.ask(Method::PUT, &hub.admin, "/api/v1/labels/set", body)
    };
    for wrong in [&["boot"][..], &["bag", "boot", "coat"], &["boot", "bag", "hat", "coat"]] {
        assert_eq!(put(wrong).await.error(409).code, "conflict", "{wrong:?}");
    }
    for wrong in [&["boot", "bag", "coat", ""][..], &["boot", "bag", "coat", "bag"]] {
        assert_eq!(put(wrong).await.error(400).code, "invalid", "{wrong:?}");
    }
    let set: LabelSet = put(&["boot", "bag", "coat", "hat"]).await.json();
    assert_eq!(set.labels.len(), 4);
}

#[tokio::test]
async fn freezing_twice_gives_the_same_dataset_and_a_label_gives_another() {
    let hub = Hub::new().await;
    hub.import(Split::Train, 0, &["boot", "bag"]).await;
    hub.import(Split::Gate, 50, &["coat"]).await;
    let mut device = hub.device("dev-a", "press 7").await;
    let mut samples = Vec::new();
    for shade in 100..120 {
        let sample = hub.sample(&mut device, &picture(shade), UNSURE).await;
        hub.post("/api/v1/labels", &label(sample, "boot")).await;
        samples.push(sample);
    }
    let request = FreezeRequest { name: "line 3".into(), gate_share: 0.5, groups: vec![] };
    let first: DatasetSummary = hub.post("/api/v1/datasets", &request).await.json();
    hub.state.clock.set(fleetloop_protocol::UnixMillis(NOW.0 + 60_000));
    let again: DatasetSummary = hub.post("/api/v1/datasets", &request).await.json();
    assert_eq!(again, first);
    let path = format!("/api/v1/datasets/{}", first.digest);
    let answer = hub.ask(Method::GET, &hub.worker, &path, Body::empty()).await;
    assert_eq!(Digest::of(&answer.body), first.digest);
    let dataset: Dataset = answer.json();
    assert_eq!(dataset.items.len(), 23);
    // An import forms a group by its source.
    let groups = dataset.items.iter().map(|item| item.group.as_str()).collect::<BTreeSet<_>>();
    assert_eq!(groups.into_iter().collect::<Vec<_>>(), ["fleet", "import:test pictures"]);
    let imports = FreezeRequest { groups: vec!["import".into()], ..request.clone() };
    let imported: DatasetSummary = hub.post("/api/v1/datasets", &imports).await.json();
    assert_eq!(imported.train + imported.gate, 3, "all sources are imports");
    assert!(dataset.items.is_sorted_by(|a, b| a.sample < b.sample));
    for item in dataset.items.iter().filter(|item| item.group == "fleet") {
        assert_eq!(item.split == Split::Gate, is_gate(item.payload, 0.5));
    }
    assert_eq!(first.train + first.gate, 23);
    hub.post("/api/v1/labels", &label(samples[0], "bag")).await;
    let other: DatasetSummary = hub.post("/api/v1/datasets", &request).await.json();
    assert_ne!(other.digest, first.digest);
    let listed: Vec<DatasetSummary> = hub.get("/api/v1/datasets").await.json();
    assert_eq!(listed.len(), 3);
}

#[tokio::test]
async fn a_picture_to_judge_by_is_not_learnt_from() {
    let hub = Hub::new().await;
    hub.import(Split::Train, 0, &["boot", "bag", "coat"]).await;
    hub.import(Split::Gate, 1, &["bag"]).await;
    let mut device = hub.device("dev-a", "press 7").await;
    for shade in [1, 2] {
        let sample = hub.sample(&mut device, &picture(shade), UNSURE).await;
        hub.post("/api/v1/labels", &label(sample, "boot")).await;
    }
    let request = FreezeRequest { name: "d".into(), gate_share: 0.0, groups: vec![] };
    let frozen: DatasetSummary = hub.post("/api/v1/datasets", &request).await.json();
    // The second picture is there once, to judge by, and the third once, to learn from.
    assert_eq!((frozen.train, frozen.gate), (2, 1));
    let path = format!("/api/v1/datasets/{}", frozen.digest);
    let dataset: Dataset = hub.ask(Method::GET, &hub.worker, &path, Body::empty()).await.json();
    let payloads = |split| {
        let items = dataset.items.iter().filter(move |item| item.split == split);
        items.map(|item| item.payload).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(payloads(Split::Train).is_disjoint(&payloads(Split::Gate)), "{dataset:?}");
}

#[tokio::test]
async fn a_dataset_without_a_split_is_refused_and_the_reason_named() {
    let hub = Hub::new().await;
    hub.import(Split::Train, 0, &["boot"]).await;
    let freeze =
        |gate_share, groups: Vec<String>| FreezeRequest { name: "d".into(), gate_share, groups };
    let refused = hub.post("/api/v1/datasets", &freeze(0.2, vec![])).await.error(409);
    assert!(refused.message.contains("judge by"), "{refused}");
    let refused = hub.post("/api/v1/datasets", &freeze(0.2, vec!["fleet".into()])).await.error(409);
    assert!(refused.message.contains("learn from"), "{refused}");
    for (share, groups) in [(1.5, vec![]), (-0.1, vec![]), (0.2, vec!["x".to_owned()])] {
        assert_eq!(
            hub.post("/api/v1/datasets", &freeze(share, groups)).await.error(400).code,
            "invalid"
        );
    }
}

#[tokio::test]
async fn an_artefact_is_stored_under_its_digest_only_and_within_the_limit() {
    let hub = Hub::new().await;
    let bytes = vec![3; 70_000];
    let digest = Digest::of(&bytes);
    let put = async |digest: Digest, bytes: Vec<u8>| {
        let path = format!("/api/v1/artefacts/{digest}");
        hub.ask(Method::PUT, &hub.worker, &path, Body::from(bytes)).await
    };
    assert_eq!(put(Digest::ZERO, bytes.clone()).await.error(400).code, "mismatch");
    let path = format!("/api/v1/artefacts/{digest}");
    assert_eq!(hub.get(&path).await.error(404).code, "not_found");
    for _ in 0..2 {
        let stored: super::artefacts::Stored = put(digest, bytes.clone()).await.json();
        assert_eq!(stored.bytes, 70_000);
    }
    assert_eq!(put(digest, b"other".to_vec()).await.error(400).code, "mismatch");
    let got = hub.get(&path).await;
    assert_eq!(
        (got.body.as_ref(), got.headers["content-length"].as_bytes()),
        (&bytes[..], &b"70000"[..])
    );
    // Over the limit, announced and not.
    let large = vec![0; 100_001];
    assert_eq!(put(Digest::of(&large), large.clone()).await.error(413).code, "too_large");
    let pieces = futures::stream::iter([Ok::<_, std::io::Error>(large.clone())]);
    let path = format!("/api/v1/artefacts/{}", Digest::of(&large));
    let answer = hub.ask(Method::PUT, &hub.worker, &path, Body::from_stream(pieces)).await;
    assert_eq!(answer.error(413).code, "too_large");
}

#[tokio::test]
async fn a_revoked_device_stays_revoked_and_its_session_is_told_to_end() {
    let hub = Hub::new().await;
    let mut events = hub.state.events.subscribe();
    let mut device = hub.device("dev-a", "press 7").await;
    hub.sample(&mut device, &picture(1), UNSURE).await;
    let listed: Vec<Device> = hub.get("/api/v1/devices").await.json();
    assert_eq!((listed[0].name.as_str(), listed[0].samples_stored), ("press 7", 1));
    let revoked: Device = hub.post("/api/v1/devices/dev-a/revoke", &()).await.json();
    assert_eq!(revoked.state, DeviceState::Revoked);
    let event = events.try_recv().unwrap();
    assert!(
        matches!(event, crate::HubEvent::DeviceRevoked { device } if device.as_str() == "dev-a")
    );
    let shown: Device = hub.get("/api/v1/devices/dev-a").await.json();
    assert_eq!(shown.state, DeviceState::Revoked);
    assert_eq!(hub.post("/api/v1/devices/dev-b/revoke", &()).await.error(404).code, "not_found");
}

#[tokio::test]
async fn a_device_that_is_not_there_cannot_be_replaced() {
    let hub = Hub::new().await;
    let request = ReplaceRequest { name: None, valid_s: 60 };
    let refused = hub.post("/api/v1/devices/dev-x/replace", &request).await.error(404);
    assert!(refused.message.contains("dev-x"), "{}", refused.message);
}
