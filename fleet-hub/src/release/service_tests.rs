//! The three steps of a release, and what a start mends.

use fleetloop_protocol::UnixMillis;

use super::fixture::{Hub, NOW, about, labels, without_gate};
use super::*;
use crate::durable::{self, Access};
use crate::store::{StoreError, audit, labels as label_rows, registry, releases};
use fleetloop_models::bundle::Description;
use fleetloop_protocol::api::labels::LabelSet;
use fleetloop_protocol::api::models::{Release, ReleaseRequest};
use fleetloop_protocol::api::reports::{Outcome, Verdict};

async fn releases_of(hub: &Hub) -> Vec<(String, BundleDigest)> {
    let rows = hub.state.store.read(releases::list).await.unwrap();
    rows.into_iter().map(|r| (r.target, r.bundle)).collect()
}

fn in_repository(hub: &Hub) -> Vec<String> {
    let targets = Repository::open(&hub.state.config.paths.tuf()).unwrap().targets();
    targets.into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".toml")).collect()
}

async fn intend(hub: &Hub, target: &str, bundle: BundleDigest) {
    let release = Release {
        channel: "dev".into(),
        target: target.into(),
        bundle,
        released_by: "admin".into(),
        released_at_ms: NOW.0,
    };
    hub.state.store.write(move |tx| releases::intend(tx, &release)).await.unwrap();
}

#[tokio::test]
async fn what_no_gate_let_pass_is_released_only_with_a_reason_that_is_kept() {
    let hub = Hub::new().await;
    let bundle = hub.bundle("wear", 1, None).await;
    crate::registry::import(&hub.state, bundle, "admin").await.unwrap();
    let plain = |reason: Option<&str>| ReleaseRequest {
        bundle,
        channel: "dev".into(),
        without_gate: reason.map(str::to_owned),
        accept_few: true,
    };
    for reason in [None, Some(""), Some("  ")] {
        let refused = release(&hub.state, plain(reason), "admin").await;
        assert!(matches!(refused, Err(ReleaseError::Gate { .. })), "{refused:?}");
    }
    assert!(in_repository(&hub).is_empty());
    let released = release(&hub.state, plain(Some("first light")), "admin").await.unwrap();
    assert_eq!(released.target, "wear/1/bundle.toml");
    let lines = hub.state.store.read(|c| audit::last(c, 10)).await.unwrap();
    assert!(lines.iter().any(|l| l.action == "release.intend" && l.detail.contains("first light")));
    // Again: the same answer, and nothing is signed anew.
    let again = release(&hub.state, plain(Some("again")), "other").await.unwrap();
    assert_eq!(again, released);
}

#[tokio::test]
async fn a_verdict_decides_whether_a_reason_is_needed() {
    let hub = Hub::new().await;
    for (version, outcome, accept_few, is_released) in [
        (1, Outcome::Passed, false, true),
        (2, Outcome::Failed, false, false),
        (3, Outcome::Failed, true, false),
        (4, Outcome::TooFew, false, false),
        (5, Outcome::TooFew, true, true),
    ] {
        let bundle = hub.bundle("wear", version, None).await;
        crate::registry::import(&hub.state, bundle, "admin").await.unwrap();
        let verdict = Verdict { outcome, checks: vec![] };
        hub.state.store.write(move |tx| registry::judge(tx, bundle, &verdict)).await.unwrap();
        let channel = "dev".into();
        let request = ReleaseRequest { bundle, channel, without_gate: None, accept_few };
        let released = release(&hub.state, request, "admin").await;
        assert_eq!(released.is_ok(), is_released, "{version}: {released:?}");
        if let (Err(error), Outcome::TooFew) = (&released, outcome) {
            assert!(error.to_string().contains("--accept-few"), "{error}");
        }
    }
    let lines = hub.state.store.read(|c| audit::last(c, 30)).await.unwrap();
    assert!(lines.iter().any(|l| l.action == "release.intend" && l.detail.contains("accepted")));
}

async fn bundle_of(hub: &Hub, version: u32, labels: &[String]) -> BundleDigest {
    hub.bundle_of(Description { labels: labels.to_vec(), ..about("wear", version, None) }).await
}

#[tokio::test]
async fn a_bundle_that_does_not_share_the_hubs_labels_is_not_imported() {
    let hub = Hub::new().await;
    let known = labels();
    let turned: Vec<_> = known.iter().rev().cloned().collect();
    let more = [known.clone(), vec!["c".to_owned()]].concat();
    for wrong in [&turned, &more] {
        let bundle = bundle_of(&hub, 1, wrong).await;
        let refused = crate::registry::import(&hub.state, bundle, "admin").await;
        assert!(
            matches!(&refused, Err(StoreError::Conflict { what }) if what.contains("the hub's a, b")),
            "{refused:?}"
        );
    }
    // A label that came later does not shut out what was made before it.
    let set = LabelSet { labels: more.clone() };
    hub.state.store.write(move |tx| label_rows::extend(tx, &set, "t")).await.unwrap();
    for (version, right) in [(1, &known), (2, &more)] {
        let bundle = bundle_of(&hub, version, right).await;
        crate::registry::import(&hub.state, bundle, "admin").await.unwrap();
    }
}

#[tokio::test]
async fn there_is_no_other_channel_than_dev() {
    let hub = Hub::new().await;
    let bundle = hub.bundle("wear", 1, None).await;
    let request = ReleaseRequest { channel: "prod".into(), ..without_gate(bundle) };
    let refused = release(&hub.state, request, "admin").await;
    assert!(matches!(refused, Err(ReleaseError::Channel { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_cut_before_publishing_leaves_no_release() {
    let hub = Hub::new().await;
    let bundle = hub.bundle("wear", 1, None).await;
    crate::registry::import(&hub.state, bundle, "admin").await.unwrap();
    intend(&hub, "wear/1/bundle.toml", bundle).await;
    assert!(releases_of(&hub).await.is_empty());
    let hub = hub.restarted();
    reconcile(&hub.state).await.unwrap();
    assert!(hub.state.store.read(releases::intended).await.unwrap().is_empty());
    // Nothing is in the way of releasing it now.
    release(&hub.state, without_gate(bundle), "admin").await.unwrap();
}

#[tokio::test]
async fn a_cut_after_publishing_leaves_a_release() {
    let hub = Hub::new().await;
    let bundle = hub.bundle("wear", 1, None).await;
    crate::registry::import(&hub.state, bundle, "admin").await.unwrap();
    intend(&hub, "wear/1/bundle.toml", bundle).await;
    let bytes = hub.state.artefacts.get(bundle.0).await.unwrap();
    let tuf = hub.state.config.paths.tuf();
    Repository::open(&tuf).unwrap().publish("wear/1/bundle.toml", &bytes, NOW).unwrap();
    let hub = hub.restarted();
    reconcile(&hub.state).await.unwrap();
    assert_eq!(releases_of(&hub).await, [("wear/1/bundle.toml".to_owned(), bundle)]);
}

#[tokio::test]
async fn database_and_repository_agree_after_either_was_restored_from_a_backup() {
    let hub = Hub::new().await;
    let dev = hub.state.config.paths.tuf().join("dev");
    let old = std::fs::read(dev.join("timestamp.json")).unwrap();
    let bundle = hub.released("wear", 1).await;
    // An older repository.
    durable::write(&dev.join("timestamp.json"), &old, Access::Everybody).unwrap();
    assert!(in_repository(&hub).is_empty());
    reconcile(&hub.state).await.unwrap();
    assert_eq!(in_repository(&hub), ["wear/1/bundle.toml"]);
    // An older database.
    let forget = |tx: &rusqlite::Transaction<'_>| Ok(tx.execute("DELETE FROM release", [])?);
    hub.state.store.write(forget).await.unwrap();
    reconcile(&hub.state).await.unwrap();
    assert_eq!(releases_of(&hub).await, [("wear/1/bundle.toml".to_owned(), bundle)]);
}

#[tokio::test]
async fn a_full_disk_at_the_repository_is_no_release() {
    use std::os::unix::fs::PermissionsExt as _;
    let hub = Hub::new().await;
    let bundle = hub.bundle("wear", 1, None).await;
    crate::registry::import(&hub.state, bundle, "admin").await.unwrap();
    // A folder in the way of the new targets file fails the write as a full disk does, for root too.
    let dev = hub.state.config.paths.tuf().join("dev");
    let second = format!("{}.targets.json", NOW.0 / 1000 + 1);
    std::fs::create_dir_all(dev.join(&second).join("x")).unwrap();
    let failed = release(&hub.state, without_gate(bundle), "admin").await;
    assert!(matches!(failed, Err(ReleaseError::Io { .. })), "{failed:?}");
    assert!(releases_of(&hub).await.is_empty());
    assert!(hub.state.store.read(releases::intended).await.unwrap().is_empty());
    std::fs::remove_dir_all(dev.join(&second)).unwrap();
    release(&hub.state, without_gate(bundle), "admin").await.unwrap();
    let mode = std::fs::metadata(dev.join(&second)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[tokio::test]
async fn a_later_start_signs_anew_what_ended_meanwhile() {
    let hub = Hub::new().await;
    let late = UnixMillis(NOW.0 + 200 * 24 * 60 * 60 * 1000);
    hub.state.clock.set(late);
    let running = tokio::spawn(run(hub.state.clone()));
    let tuf = hub.state.config.paths.tuf();
    let timestamp = tuf.join("dev/timestamp.json");
    // Waits for the effect, however long it takes.
    loop {
        let bytes = std::fs::read(&timestamp).unwrap();
        let signed: tough::schema::Signed<tough::schema::Timestamp> =
            serde_json::from_slice(&bytes).unwrap();
        if u64::try_from(signed.signed.expires.as_millisecond()).unwrap() > late.0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    hub.stop.send(true).unwrap();
    running.await.unwrap().unwrap();
}
