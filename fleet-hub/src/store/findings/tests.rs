//! Over the real store and the real router.

use axum::http::Method;
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::findings::{AcknowledgeRequest, Finding};
use fleetloop_protocol::api::status::HubStatus;

use super::*;
use crate::api::testing::{Hub, NOW};
use crate::store::audit;

async fn found(hub: &Hub, kind: Kind, device: Option<&str>, subject: &str, at: u64) -> Recorded {
    let device = device.map(|device| device.parse().unwrap());
    let subject = subject.to_owned();
    let write = hub.state.store.write(move |tx| {
        let (device, at) = (device.as_ref(), UnixMillis(at));
        record(tx, &NewFinding { kind, device, subject: &subject, detail: "seen", at })
    });
    write.await.unwrap()
}

async fn listed(hub: &Hub, query: &str) -> Vec<Finding> {
    hub.get(&format!("/api/v1/findings{query}")).await.json()
}

async fn recorded_in_audit(hub: &Hub) -> usize {
    let lines = hub.state.store.read(|c| audit::last(c, 1000)).await.unwrap();
    lines.iter().filter(|line| line.action == "finding.record").count()
}

#[tokio::test]
async fn a_finding_is_recorded_once_and_a_repeat_is_only_counted() {
    let hub = Hub::new().await;
    hub.device("dev-a", "a").await;
    let at = |n| NOW.0 + n;
    assert_eq!(found(&hub, Kind::Clone, Some("dev-a"), "epoch 1", at(0)).await, Recorded::New);
    for n in 1..10 {
        let again = found(&hub, Kind::Clone, Some("dev-a"), "epoch 1", at(n)).await;
        assert_eq!(again, Recorded::Again);
    }
    assert_eq!(found(&hub, Kind::Clone, Some("dev-a"), "epoch 2", at(3)).await, Recorded::New);
    assert_eq!(found(&hub, Kind::Clone, None, "epoch 1", at(2)).await, Recorded::New);
    let all = listed(&hub, "").await;
    assert_eq!(all.len(), 3);
    assert_eq!((all[0].count, all[0].first_at_ms, all[0].last_at_ms), (10, at(0), at(9)));
    assert_eq!(listed(&hub, "?device=dev-a").await.len(), 2);
    assert_eq!(recorded_in_audit(&hub).await, 3);
    let status: HubStatus = hub.get("/api/v1/status").await.json();
    assert_eq!(status.findings["clone"], 3);
    let metrics = hub.get("/metrics").await.text();
    assert!(metrics.contains("fleetloop_hub_findings{kind=\"clone\"} 3"), "{metrics}");
}

#[tokio::test]
async fn an_acknowledged_finding_is_off_the_list_until_it_happens_again_a_day_later() {
    let hub = Hub::new().await;
    found(&hub, Kind::HubOlder, None, "root", NOW.0).await;
    let id = listed(&hub, "").await[0].id;
    let path = format!("/api/v1/findings/{id}/acknowledge");
    let request = AcknowledgeRequest { note: "restored\non purpose".into() };
    let body = || serde_json::to_vec(&request).unwrap().into();
    hub.ask(Method::POST, &hub.annotator, &path, body()).await.error(403);
    let seen: Finding = hub.ask(Method::POST, &hub.admin, &path, body()).await.json();
    let seen = seen.acknowledged.unwrap();
    assert_eq!((seen.by.as_str(), seen.at_ms), ("alice", NOW.0));
    assert_eq!(seen.note, "restored\\non purpose");
    found(&hub, Kind::HubOlder, None, "root", NOW.0 + REOPEN_MS).await;
    assert_eq!((listed(&hub, "").await.len(), listed(&hub, "?all=true").await.len()), (0, 1));
    found(&hub, Kind::HubOlder, None, "root", NOW.0 + REOPEN_MS + 1).await;
    let open = listed(&hub, "").await;
    assert_eq!((open.len(), open[0].count), (1, 3));
    hub.post("/api/v1/findings/99/acknowledge", &request).await.error(404);
    hub.get("/api/v1/findings?limit=0").await.error(400);
}

#[tokio::test]
async fn a_device_that_fills_its_share_pushes_out_nobody_elses_and_no_alarm_of_its_own() {
    let hub = Hub::new().await;
    for device in ["dev-a", "dev-b"] {
        hub.device(device, device).await;
        found(&hub, Kind::Clone, Some(device), "first", NOW.0).await;
    }
    for n in 1..PER_DEVICE {
        let model = format!("model {n}");
        let new = found(&hub, Kind::ModelUnknown, Some("dev-a"), &model, NOW.0 + 1).await;
        assert_eq!(new, Recorded::New);
    }
    for n in 0..5 {
        let model = format!("more {n}");
        let more = found(&hub, Kind::ModelUnknown, Some("dev-a"), &model, NOW.0 + 2).await;
        assert_eq!(more, Recorded::Overflow);
    }
    // What matters more takes the place of what matters less, never the other way round.
    let alarm = found(&hub, Kind::Clone, Some("dev-a"), "second", NOW.0 + 3).await;
    assert_eq!(alarm, Recorded::New);
    let of_a = listed(&hub, "?device=dev-a").await;
    assert_eq!(of_a.len(), PER_DEVICE as usize + 1);
    assert_eq!(of_a.iter().filter(|f| f.kind == "clone").count(), 2);
    let overflow = of_a.iter().find(|f| f.kind == "finding.overflow").unwrap();
    assert_eq!(overflow.count, 5);
    assert_eq!(listed(&hub, "?device=dev-b").await.len(), 1);
    // What somebody has seen to makes room first.
    let seen = of_a.iter().find(|f| f.subject == "model 40").unwrap().id;
    let path = format!("/api/v1/findings/{seen}/acknowledge");
    hub.post(&path, &AcknowledgeRequest::default()).await.json::<Finding>();
    assert_eq!(
        found(&hub, Kind::ModelUnknown, Some("dev-a"), "late", NOW.0 + 4).await,
        Recorded::New
    );
    assert!(listed(&hub, "?device=dev-a&all=true").await.iter().all(|f| f.id != seen));
}

#[tokio::test]
async fn words_from_outside_are_escaped_and_cut_before_they_are_kept() {
    let hub = Hub::new().await;
    found(&hub, Kind::QuotaDrop, None, &"x\n".repeat(500), NOW.0).await;
    let kept = &listed(&hub, "").await[0].subject;
    assert_eq!(kept.chars().count(), SUBJECT_CHARS);
    assert!(kept.starts_with("x\\nx") && kept.ends_with('…'), "{kept}");
}
