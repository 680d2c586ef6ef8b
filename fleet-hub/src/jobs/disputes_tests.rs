//! A worker that reports something else about the base than what is stored, and who decides.

use fleetloop_protocol::api::jobs::{Base, JobState, Lease, Progress, Renew, TrainRequest};
use fleetloop_protocol::api::reports::{GateRequest, ReportState};

use super::*;
use crate::jobs::tests::{leased, result, starter};
use crate::release::fixture::{Hub, report, without_gate};
use crate::store::findings::{self, Filter, Kind};

/// A hub with a base that was trained here, and a job from it in the hands of `w2`.
struct Scene {
    hub: Hub,
    base: BundleDigest,
    lease: Lease,
    /// What an honest worker says of the job.
    honest: Done,
    /// The same, with a base that gets nothing right.
    forged: Done,
}

async fn scene() -> Scene {
    let hub = Hub::new().await;
    let (digest, dataset) = hub.dataset().await;
    let first = leased(&hub, starter(digest)).await;
    let end = result(&hub, &first, digest, &dataset, None, 3).await;
    let base = crate::jobs::done(&hub.state, first.job, end, "w1").await.unwrap().bundle;
    let from_base = TrainRequest { base: Base::Bundle { bundle: base }, ..starter(digest) };
    crate::jobs::request(&hub.state, from_base, "admin").await.unwrap();
    let lease = crate::jobs::lease(&hub.state, "w2", "w2").await.unwrap().unwrap();
    let honest = result(&hub, &lease, digest, &dataset, Some(base), 2).await;
    let mut forged = honest.clone();
    forged.base_report = Some(report(base, digest, &dataset, 1000));
    Scene { hub, base, lease, honest, forged }
}

impl Scene {
    async fn done(&self, result: &Done) -> Result<(), StoreError> {
        crate::jobs::done(&self.hub.state, self.lease.job, result.clone(), "w2").await.map(drop)
    }

    async fn job(&self) -> JobState {
        let id = self.lease.job;
        let job = self.hub.state.store.read(move |c| rows::get(c, id)).await.unwrap();
        job.to_api(self.hub.state.clock.now()).state
    }

    async fn models(&self) -> usize {
        self.hub.state.store.read(models::list).await.unwrap().len()
    }

    async fn open_findings(&self) -> Vec<String> {
        let filter = Filter { limit: 10, ..Filter::default() };
        let found = self.hub.state.store.read(move |c| findings::list(c, &filter)).await.unwrap();
        found.into_iter().map(|finding| finding.kind).collect()
    }

    async fn reports(&self) -> Vec<StoredReport> {
        let reports = self.hub.state.store.read(|c| stored::list(c, false, 10)).await.unwrap();
        assert!(reports.iter().all(|report| report.bundle == self.base));
        reports
    }
}

#[tokio::test]
async fn a_forged_report_on_the_base_is_an_alarm_and_nothing_is_registered_judged_or_released() {
    let scene = scene().await;
    for _ in 0..2 {
        let refused = scene.done(&scene.forged).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    }
    assert_eq!(scene.models().await, 1);
    assert!(matches!(scene.job().await, JobState::Held { .. }));
    assert_eq!(scene.open_findings().await, [Kind::ReportContradiction.word()]);
    let disputed = scene.reports().await;
    assert_eq!(disputed.iter().map(|r| r.right).sum::<u64>(), 294);
    assert!(disputed.iter().all(|report| report.state == ReportState::Disputed));
    // The base itself is judged by a report that is in dispute now.
    let judged =
        registry::judge(&scene.hub.state, scene.base, GateRequest::default(), "admin").await;
    assert!(matches!(judged, Err(StoreError::Conflict { .. })), "{judged:?}");
    let asked = without_gate(scene.base);
    let plain = fleetloop_protocol::api::models::ReleaseRequest { without_gate: None, ..asked };
    let released = crate::release::release(&scene.hub.state, plain, "admin").await;
    assert!(matches!(released, Err(crate::release::ReleaseError::Gate { .. })), "{released:?}");
    // Nobody else is given the job, and the watch leaves it alone.
    go_on(&scene.hub.state).await.unwrap();
    assert!(crate::jobs::lease(&scene.hub.state, "w3", "w3").await.unwrap().is_none());
}

#[tokio::test]
async fn when_the_operator_accepts_the_stored_report_the_job_fails_and_the_base_is_judged_again() {
    let scene = scene().await;
    scene.done(&scene.forged).await.unwrap_err();
    let first = scene.reports().await.into_iter().find(|r| r.against.is_none()).unwrap();
    accept(&scene.hub.state, first.digest, "admin", "the other worker lies").await.unwrap();
    let JobState::Failed { reason } = scene.job().await else { panic!("{:?}", scene.job().await) };
    assert!(reason.contains("rejected"), "{reason}");
    assert_eq!((scene.models().await, scene.open_findings().await.len()), (1, 0));
    let again =
        registry::judge(&scene.hub.state, scene.base, GateRequest::default(), "admin").await;
    assert!(again.unwrap().passed());
    // The very report that was rejected is not taken again.
    let compared = compare(&scene.hub.state, &scene.forged).await;
    assert!(matches!(compared, Err(StoreError::Invalid { .. })), "{compared:?}");
    assert!(compare(&scene.hub.state, &scene.honest).await.unwrap().dispute.is_none());
}

#[tokio::test]
async fn when_the_operator_accepts_the_new_report_the_held_result_is_taken_and_old_verdicts_go() {
    let scene = scene().await;
    scene.done(&scene.forged).await.unwrap_err();
    let new = scene.reports().await.into_iter().find(|r| r.against.is_some()).unwrap();
    accept(&scene.hub.state, new.digest, "admin", "measured by hand").await.unwrap();
    let JobState::Done { bundle } = scene.job().await else { panic!("{:?}", scene.job().await) };
    assert_eq!(bundle, scene.forged.bundle);
    assert_eq!((scene.models().await, scene.open_findings().await.len()), (2, 0));
    // The base's verdict rested on a report that counts no more.
    let base = scene.base;
    let model = scene.hub.state.store.read(move |c| models::get(c, base)).await.unwrap();
    assert_eq!(model.verdict, None);
    // The answer that the worker was owed.
    scene.done(&scene.forged).await.unwrap();
    let again = accept(&scene.hub.state, new.digest, "admin", "again").await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
}

#[tokio::test]
async fn an_honest_result_is_taken_only_from_the_token_that_leased_the_job() {
    let scene = scene().await;
    let stolen =
        crate::jobs::done(&scene.hub.state, scene.lease.job, scene.honest.clone(), "w3").await;
    assert!(matches!(stolen, Err(StoreError::Conflict { .. })), "{stolen:?}");
    let progress = Progress { phase: "train".into(), ..Progress::default() };
    let renew = Renew { lease: scene.lease.lease.clone(), progress };
    let kept_up = crate::jobs::renew(&scene.hub.state, scene.lease.job, renew, "w3").await;
    assert!(matches!(kept_up, Err(StoreError::Conflict { .. })), "{kept_up:?}");
    scene.done(&scene.honest).await.unwrap();
    assert!(scene.open_findings().await.is_empty());
}

#[tokio::test]
async fn reports_that_came_while_a_result_was_compared_are_compared_too() {
    let scene = scene().await;
    let before = compare(&scene.hub.state, &scene.honest).await.unwrap();
    let holds = {
        let before = before.clone();
        scene.hub.state.store.read(move |c| before.still_holds(c)).await.unwrap()
    };
    assert!(holds);
    scene.done(&scene.forged).await.unwrap_err();
    let holds = scene.hub.state.store.read(move |c| before.still_holds(c)).await.unwrap();
    assert!(!holds);
}
