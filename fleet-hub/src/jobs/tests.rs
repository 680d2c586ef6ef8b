//! From a request to a model in the list, and every way a result is refused.

use fleetloop_models::bundle::Lineage;
use fleetloop_protocol::api::datasets::{Dataset, Split};
use fleetloop_protocol::api::jobs::{
    Base, Done, EvaluateRequest, JobKind, JobState, LEASE_S, LeftOut, Progress,
};
use fleetloop_protocol::api::reports::GateRequest;
use fleetloop_protocol::{BundleDigest, Digest, UnixMillis};

use super::*;
use crate::release::fixture::{Hub, NOW, about, manifest, report};
use crate::store::registry as models;

pub(super) fn starter(dataset: Digest) -> TrainRequest {
    TrainRequest {
        model: "wear".into(),
        base: Base::Starter { kind: "picture-cnn".into(), input: vec![1, 28, 28] },
        dataset,
        recipe: String::new(),
        seed: 7,
    }
}

fn lineage(base: Option<BundleDigest>, dataset: Digest) -> Lineage {
    Lineage { base, dataset: Some(dataset), recipe: None, trainer: "trainer 0.1".into() }
}

/// What a worker uploads and says of a job from `base`.
pub(super) async fn result(
    hub: &Hub,
    lease: &Lease,
    digest: Digest,
    dataset: &Dataset,
    base: Option<BundleDigest>,
    wrong: usize,
) -> Done {
    let spec = &lease.spec;
    let bundle = hub.bundle(&spec.model, spec.version, Some(lineage(base, digest))).await;
    Done {
        lease: lease.lease.clone(),
        bundle,
        run_record: Some(hub.put(format!("run {}", lease.lease)).await),
        report: report(bundle, digest, dataset, wrong),
        base_report: base.map(|base| report(base, digest, dataset, 3)),
        left_out: Vec::new(),
    }
}

pub(super) async fn leased(hub: &Hub, request: TrainRequest) -> Lease {
    super::request(&hub.state, request, "admin").await.unwrap();
    super::lease(&hub.state, "w1", "w1").await.unwrap().expect("a job")
}

#[tokio::test]
async fn an_imported_model_is_evaluated_and_then_judged() {
    let hub = Hub::new().await;
    let (digest, dataset) = hub.dataset().await;
    let bundle = hub.bundle("wear", 3, None).await;
    crate::registry::import(&hub.state, bundle, "admin").await.unwrap();
    let unjudged = crate::registry::judge(&hub.state, bundle, GateRequest::default(), "admin")
        .await
        .unwrap_err();
    assert!(unjudged.to_string().contains("no worker has reported on it"), "{unjudged}");
    let request = EvaluateRequest { dataset: digest };
    let job = evaluate(&hub.state, bundle, request.clone(), "admin").await.unwrap();
    assert_eq!((job.spec.kind, job.spec.version), (JobKind::Evaluate, 3));
    let lease = super::lease(&hub.state, "w1", "w1").await.unwrap().expect("a job");
    assert_eq!(lease.spec.base, Base::Bundle { bundle });
    let result = Done {
        lease: lease.lease.clone(),
        bundle,
        run_record: None,
        report: report(bundle, digest, &dataset, 2),
        base_report: None,
        left_out: Vec::new(),
    };
    let other = hub.bundle("wear", 4, None).await;
    let wrong =
        Done { bundle: other, report: report(other, digest, &dataset, 2), ..result.clone() };
    let refused = done(&hub.state, job.id, wrong, "w1").await.unwrap_err();
    assert!(refused.to_string().contains("another bundle"), "{refused}");
    let model = done(&hub.state, job.id, result.clone(), "w1").await.unwrap();
    assert_eq!((model.bundle, model.verdict, model.job), (bundle, None, None));
    let again = done(&hub.state, job.id, result, "w1").await.unwrap();
    assert_eq!(again.bundle, bundle);
    // A version is a training's; any number of evaluations may name it.
    evaluate(&hub.state, bundle, request, "admin").await.unwrap();
    let verdict =
        crate::registry::judge(&hub.state, bundle, GateRequest::default(), "admin").await.unwrap();
    assert!(!verdict.checks.is_empty());
}

#[tokio::test]
async fn a_job_becomes_a_model_with_its_lineage_and_verdict() {
    let hub = Hub::new().await;
    let (digest, dataset) = hub.dataset().await;
    let lease = leased(&hub, starter(digest)).await;
    assert_eq!((lease.spec.version, lease.spec.seed), (1, 7));
    let progress =
        Progress { phase: "train".into(), fraction: 0.5, loss: Some(0.3), ..Progress::default() };
    let sign = Renew { lease: lease.lease.clone(), progress: progress.clone() };
    renew(&hub.state, lease.job, sign, "w1").await.unwrap();
    let first = result(&hub, &lease, digest, &dataset, None, 3).await;
    let model = done(&hub.state, lease.job, first.clone(), "w1").await.unwrap();
    assert!(model.verdict.as_ref().unwrap().passed());
    assert_eq!((model.dataset, model.run_record), (Some(digest), first.run_record));
    assert_eq!((model.job, model.created_by.as_str()), (Some(lease.job), "admin"));
    // The answer was lost, so it is told again.
    assert_eq!(done(&hub.state, lease.job, first, "w1").await.unwrap(), model);

    // The next version starts from it and is judged against it.
    for (version, wrong, passes) in [(2, 2, true), (3, 4, false)] {
        let base = Base::Bundle { bundle: model.bundle };
        let lease = leased(&hub, TrainRequest { base, ..starter(digest) }).await;
        assert_eq!(lease.spec.version, version);
        let end = result(&hub, &lease, digest, &dataset, Some(model.bundle), wrong).await;
        let next = done(&hub.state, lease.job, end, "w1").await.unwrap();
        assert_eq!(next.base, Some(model.bundle));
        assert_eq!(next.verdict.as_ref().unwrap().passed(), passes);
        // The verdict can be made again from the reports that were kept.
        let again =
            crate::registry::judge(&hub.state, next.bundle, GateRequest::default(), "admin")
                .await
                .unwrap();
        assert_eq!(Some(again), next.verdict);
        let stated = GateRequest { floor: Some(1.0) };
        let stated =
            crate::registry::judge(&hub.state, next.bundle, stated, "admin").await.unwrap();
        assert!(!stated.passed(), "nothing is always right");
    }
    let wrong = GateRequest { floor: Some(90.0) };
    let wrong = crate::registry::judge(&hub.state, model.bundle, wrong, "admin").await;
    assert!(matches!(wrong, Err(StoreError::Invalid { .. })), "{wrong:?}");

    // One figure for all versions, on the pictures that all were judged by.
    let mut compared = crate::registry::compared(&hub.state).await.unwrap();
    compared.sort_by_key(|one| one.version);
    let found: Vec<_> = compared.iter().map(|one| (one.version, one.counts.good)).collect();
    assert_eq!(found, [(1, 294), (2, 296), (3, 292)]);
    assert!(compared.iter().all(|one| one.counts.of == 300 && one.interval.low > 0.9));
}

#[tokio::test]
async fn a_result_that_is_not_what_was_asked_for_is_refused_and_the_job_goes_on() {
    let hub = Hub::new().await;
    let (digest, dataset) = hub.dataset().await;
    let base = leased(&hub, starter(digest)).await;
    let end = result(&hub, &base, digest, &dataset, None, 3).await;
    let base = done(&hub.state, base.job, end, "w1").await.unwrap().bundle;
    let from_base = TrainRequest { base: Base::Bundle { bundle: base }, ..starter(digest) };
    let lease = leased(&hub, from_base).await;
    let good = result(&hub, &lease, digest, &dataset, Some(base), 2).await;

    let of = |good: &Done, bundle: BundleDigest| {
        let mut other = good.clone();
        other.bundle = bundle;
        other.report.bundle = bundle;
        other
    };
    let mut wrong: Vec<(&str, Done)> = Vec::new();
    let line = || Some(lineage(Some(base), digest));
    wrong.push(("name", of(&good, hub.bundle("other", 2, line()).await)));
    wrong.push(("version", of(&good, hub.bundle("wear", 9, line()).await)));
    let no_base = Some(lineage(None, digest));
    wrong.push(("lineage", of(&good, hub.bundle("wear", 2, no_base).await)));
    let elsewhere = Some(lineage(Some(base), Digest::of(b"x")));
    wrong.push(("dataset", of(&good, hub.bundle("wear", 2, elsewhere).await)));
    let unlisted = manifest(about("wear", 2, line()), b"never uploaded", b"{}").to_toml().unwrap();
    wrong.push(("file", of(&good, BundleDigest(hub.put(unlisted).await))));
    wrong.push(("manifest", of(&good, BundleDigest(hub.put("no manifest").await))));
    wrong.push(("not uploaded", of(&good, BundleDigest(Digest::of(b"nothing")))));
    let mut other = good.clone();
    other.run_record = Some(Digest::of(b"no such record"));
    wrong.push(("run record", other));
    let mut other = good.clone();
    other.report.outputs.pop();
    wrong.push(("short report", other));
    let mut other = good.clone();
    other.report.bundle = base;
    wrong.push(("report on another bundle", other));
    wrong.push(("no base report", Done { base_report: None, ..good.clone() }));
    let mut other = good.clone();
    other.base_report = Some(good.report.clone());
    wrong.push(("another base's report", other));

    for (what, result) in wrong {
        let refused = done(&hub.state, lease.job, result, "w1").await;
        let clear = matches!(refused, Err(StoreError::Invalid { .. }));
        assert!(clear, "{what}: {refused:?}");
        assert_eq!(hub.state.store.read(models::list).await.unwrap().len(), 1, "{what}");
    }
    done(&hub.state, lease.job, good, "w1").await.unwrap();
}

#[tokio::test]
async fn a_result_may_leave_out_what_nobody_can_read_and_nothing_else() {
    let hub = Hub::new().await;
    let (_, mut dataset) = hub.dataset().await;
    let png = fleetloop_models::picture::Frame::new(
        1,
        1,
        fleetloop_models::picture::Channels::Grey,
        vec![7],
    );
    let (good, bad) = (png.unwrap().encode_png().unwrap(), b"<html></html>".to_vec());
    for (at, bytes) in [(0, &good), (1, &bad)] {
        let gate = dataset.items.iter_mut().filter(|item| item.split == Split::Gate);
        gate.skip(at).take(1).for_each(|item| item.payload = Digest::of(bytes));
        hub.state.payloads.put(Digest::of(bytes), bytes.clone().into()).await.unwrap();
    }
    let digest = hub.put(serde_json::to_vec(&dataset).unwrap()).await;
    let lease = leased(&hub, starter(digest)).await;
    let gate: Vec<Digest> =
        dataset.items.iter().filter(|i| i.split == Split::Gate).map(|i| i.sample).collect();
    let whole = result(&hub, &lease, digest, &dataset, None, 2).await;
    let without = |samples: &[Digest]| {
        let mut done = whole.clone();
        done.report.outputs.retain(|output| !samples.contains(&output.sample));
        let left = |sample: &Digest| LeftOut { sample: *sample, reason: "?".into() };
        done.left_out = samples.iter().map(left).collect();
        done
    };
    for (samples, words) in [
        (vec![gate[0]], "can be read"),
        (vec![Digest::of(b"unknown")], "has no item"),
        // The payloads of the others are nowhere; 31 of 300 are more than one in ten.
        (gate[1..32].to_vec(), "too many"),
    ] {
        let refused = done(&hub.state, lease.job, without(&samples), "w1").await.unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
    let mut silent = without(&gate[1..2]);
    silent.left_out.clear();
    assert!(done(&hub.state, lease.job, silent, "w1").await.is_err(), "it must be named");
    done(&hub.state, lease.job, without(&gate[1..3]), "w1").await.unwrap();
}

#[tokio::test]
async fn a_lost_workers_job_is_leased_again_and_its_late_result_is_refused() {
    let hub = Hub::new().await;
    let (digest, dataset) = hub.dataset().await;
    let first = leased(&hub, starter(digest)).await;
    assert!(super::lease(&hub.state, "w2", "w2").await.unwrap().is_none());
    hub.state.clock.set(UnixMillis(NOW.0 + LEASE_S * 1000));
    let hub = hub.restarted();
    let second = super::lease(&hub.state, "w2", "w2").await.unwrap().expect("the job again");
    assert_eq!(second.job, first.job);
    let late = result(&hub, &first, digest, &dataset, None, 3).await;
    let refused = done(&hub.state, first.job, late, "w1").await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    let end = JobFailed { lease: first.lease.clone(), reason: "?".into() };
    assert!(failed(&hub.state, first.job, end, "w1").await.is_err());
    let end = result(&hub, &second, digest, &dataset, None, 3).await;
    done(&hub.state, second.job, end, "w2").await.unwrap();
}

#[tokio::test]
async fn a_job_whose_workers_are_always_lost_fails_with_a_reason() {
    let hub = Hub::new().await;
    let (digest, _) = hub.dataset().await;
    super::request(&hub.state, starter(digest), "admin").await.unwrap();
    for attempt in 0..u64::from(lease::MOST_ATTEMPTS) {
        hub.state.clock.set(UnixMillis(NOW.0 + attempt * LEASE_S * 1000));
        assert!(super::lease(&hub.state, "w", "w").await.unwrap().is_some(), "attempt {attempt}");
        give_up(&hub.state).await.unwrap();
    }
    hub.state.clock.set(UnixMillis(NOW.0 + 10 * LEASE_S * 1000));
    assert!(super::lease(&hub.state, "w", "w").await.unwrap().is_none());
    give_up(&hub.state).await.unwrap();
    let job = hub.state.store.read(|c| rows::get(c, JobId(1))).await.unwrap();
    assert!(matches!(job.to_api(NOW).state, JobState::Failed { .. }));
    // Its version is not given again.
    let next = super::request(&hub.state, starter(digest), "admin").await.unwrap();
    assert_eq!(next.spec.version, 2);
}

#[tokio::test]
async fn a_worker_that_cannot_do_it_ends_the_job_with_its_reason() {
    let hub = Hub::new().await;
    let (digest, _) = hub.dataset().await;
    let lease = leased(&hub, starter(digest)).await;
    let end = JobFailed { lease: lease.lease, reason: "operator Foo is not known".into() };
    for _ in 0..2 {
        failed(&hub.state, lease.job, end.clone(), "w1").await.unwrap();
    }
    let id = lease.job;
    let job = hub.state.store.read(move |c| rows::get(c, id)).await.unwrap().to_api(NOW);
    assert_eq!(job.state, JobState::Failed { reason: "operator Foo is not known".into() });
}

#[tokio::test]
async fn what_cannot_be_trained_is_not_queued() {
    let hub = Hub::new().await;
    let (digest, _) = hub.dataset().await;
    let bundle = BundleDigest(Digest::of(b"unknown"));
    let bad = [
        TrainRequest { model: "Wear/..".into(), ..starter(digest) },
        TrainRequest { model: String::new(), ..starter(digest) },
        TrainRequest { dataset: Digest::of(b"none"), ..starter(digest) },
        TrainRequest { dataset: hub.put("no dataset").await, ..starter(digest) },
        TrainRequest { recipe: "epochs = ".into(), ..starter(digest) },
        TrainRequest { recipe: "#".repeat(65 * 1024), ..starter(digest) },
        TrainRequest { base: Base::Bundle { bundle }, ..starter(digest) },
        TrainRequest {
            base: Base::Starter { kind: "x".into(), input: vec![0] },
            ..starter(digest)
        },
    ];
    for request in bad {
        let text = format!("{request:?}");
        assert!(super::request(&hub.state, request, "admin").await.is_err(), "{text}");
    }
    assert!(super::lease(&hub.state, "w", "w").await.unwrap().is_none());
}

#[tokio::test]
async fn two_bundles_cannot_have_one_name_and_version() {
    let hub = Hub::new().await;
    hub.released("wear", 1).await;
    let other = hub.bundle("wear", 1, Some(lineage(None, Digest::of(b"d")))).await;
    let refused = crate::registry::import(&hub.state, other, "admin").await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    let (digest, _) = hub.dataset().await;
    assert_eq!(leased(&hub, starter(digest)).await.spec.version, 2);
}
