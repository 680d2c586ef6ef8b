//! Hostile models at the hub's doors: the import, and a job's result.

use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::jobs::{Base, Done, TrainRequest};

use super::*;
use crate::jobs;
use crate::release::fixture::{Hub, about, manifest, report};

#[path = "../../../models/tests/hostile/mod.rs"]
mod hostile;

use hostile::{build, refused};

/// Uploads a bundle of `model`, as whoever brings one does.
async fn upload(
    hub: &Hub,
    about: fleetloop_models::bundle::Description,
    model: &[u8],
) -> BundleDigest {
    let manifest = manifest(about, model, b"{}").to_toml().unwrap();
    hub.put(model).await;
    hub.put("{}").await;
    BundleDigest(hub.put(manifest).await)
}

async fn listed(hub: &Hub) -> usize {
    hub.state.store.read(rows::list).await.unwrap().len()
}

#[tokio::test]
async fn no_hostile_model_is_imported() {
    let hub = Hub::new().await;
    for case in refused::all() {
        let bundle = upload(&hub, about("wear", 1, None), &case.file).await;
        let error = import(&hub.state, bundle, "admin").await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{}: {error}", case.name);
        assert!(error.to_string().contains(case.reason), "{}: {error}", case.name);
    }
    assert_eq!(listed(&hub).await, 0);
    let plain = upload(&hub, about("wear", 1, None), &build::plain()).await;
    import(&hub.state, plain, "admin").await.unwrap();
}

#[tokio::test]
async fn a_manifest_that_says_otherwise_than_its_graph_is_not_imported() {
    use fleetloop_models::bundle::{Description, OutputKind};
    let hub = Hub::new().await;
    let soft = build::with_extra().message(1, &build::node("Softmax", &["product"], &["logits"]));
    let soft = build::model(&soft);
    let of = |output| Description { output, ..about("wear", 1, None) };
    let bundle = upload(&hub, of(OutputKind::Logits), &soft.0).await;
    let error = import(&hub.state, bundle, "admin").await.unwrap_err().to_string();
    assert!(error.contains("is softmax as the graph shows, not logits"), "{error}");
    let bundle = upload(&hub, of(OutputKind::Softmax), &soft.0).await;
    import(&hub.state, bundle, "admin").await.unwrap();
}

#[tokio::test]
async fn no_hostile_model_comes_in_as_a_jobs_result_and_the_job_goes_on() {
    let hub = Hub::new().await;
    let (digest, dataset) = hub.dataset().await;
    let request = TrainRequest {
        model: "wear".into(),
        base: Base::Starter { kind: "picture-cnn".into(), input: vec![1, 28, 28] },
        dataset: digest,
        recipe: String::new(),
        seed: 7,
    };
    jobs::request(&hub.state, request, "admin").await.unwrap();
    let lease = jobs::lease(&hub.state, "w1", "w1").await.unwrap().expect("a job");
    let lineage = fleetloop_models::bundle::Lineage {
        base: None,
        dataset: Some(digest),
        recipe: None,
        trainer: "trainer 0.1".into(),
    };
    let run_record = hub.put("run").await;
    let result = |bundle| Done {
        lease: lease.lease.clone(),
        bundle,
        run_record: Some(run_record),
        report: report(bundle, digest, &dataset, 3),
        base_report: None,
        left_out: Vec::new(),
    };
    let described = || about("wear", lease.spec.version, Some(lineage.clone()));
    for case in refused::all() {
        let bundle = upload(&hub, described(), &case.file).await;
        let error = jobs::done(&hub.state, lease.job, result(bundle), "w1").await.unwrap_err();
        assert!(error.to_string().contains(case.reason), "{}: {error}", case.name);
    }
    assert_eq!(listed(&hub).await, 0);
    let plain = upload(&hub, described(), &build::plain()).await;
    jobs::done(&hub.state, lease.job, result(plain), "w1").await.unwrap();
}
