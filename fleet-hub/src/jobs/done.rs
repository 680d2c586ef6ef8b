//! A job's result: held against what was asked, then a model.

use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::Dataset;
use fleetloop_protocol::api::jobs::{Base, Done, JobId, TrainJob};
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::Report;

use super::{conflict, lease::Heard};
use crate::AppState;
use crate::gate::{self, Policy};
use crate::registry::{self, Held};
use crate::store::registry::{self as models, ReportRow};
use crate::store::{StoreError, audit, jobs as rows};

/// Ends a job with the bundle that a worker made: checks it, lists the model, lets the gate judge
/// it. Telling it again gives the same answer.
///
/// # Errors
/// [`StoreError::Conflict`] under a lease that is not the job's last; [`StoreError::Invalid`] when
/// an artefact was not uploaded or the result is not what was asked. The job is untouched then: the
/// worker may mend it, or fail the job.
pub async fn done(
    state: &AppState,
    id: JobId,
    result: Done,
    who: &str,
) -> Result<Model, StoreError> {
    let job = state.store.read(move |c| rows::get(c, id)).await?;
    let bundle = result.bundle;
    // Observe before anything is written: a stale worker costs nothing.
    let heard = job.record.clone().done(&result.lease, bundle).map_err(|e| conflict(id, &e))?;
    if heard == Heard::Again {
        return state.store.read(move |c| models::get(c, bundle)).await;
    }
    let held = registry::hold(&state.artefacts, bundle).await?;
    let dataset = registry::dataset(&state.artefacts, job.spec.dataset).await?;
    check(&job.spec, &held, &dataset, &result).map_err(|reason| StoreError::Invalid {
        what: format!("cannot take the result of job {}: {reason}", id.0),
    })?;
    if !state.artefacts.exists(result.run_record).await? {
        let what = format!(
            "cannot take the result of job {}: run record {} is not stored; upload it first",
            id.0, result.run_record
        );
        return Err(StoreError::Invalid { what });
    }

    let verdict = gate::verdict(&result.report, result.base_report.as_ref(), &Policy::default());
    let now = state.clock.now();
    let mut reports = Vec::new();
    for report in std::iter::once(&result.report).chain(&result.base_report) {
        let digest = registry::store_report(&state.artefacts, report).await?;
        reports.push(report_row(report, digest, id));
    }
    let model = Model {
        bundle,
        name: job.spec.model.clone(),
        version: job.spec.version,
        base: base_of(&job.spec),
        dataset: Some(job.spec.dataset),
        run_record: Some(result.run_record),
        job: Some(id),
        verdict: Some(verdict),
        released_as: Vec::new(),
        created_by: job.requested_by.clone(),
        created_at_ms: now.0,
    };
    let (lease, who) = (result.lease, who.to_owned());
    state
        .store
        .write(move |tx| {
            let mut job = rows::get(tx, id)?;
            if job.record.done(&lease, bundle).map_err(|e| conflict(id, &e))? == Heard::New {
                models::insert(tx, &model, &held.manifest.target_name(), held.bytes.len() as u64)?;
                for report in &reports {
                    models::add_report(tx, report, now.0)?;
                }
                rows::save(tx, id, &job.record, job.progress.as_ref())?;
                let passed = model.verdict.as_ref().is_some_and(|v| v.passed);
                let gate = if passed { "gate passed" } else { "gate failed" };
                audit(tx, &who, "job.done", &id.0.to_string(), &format!("{bundle}, {gate}"))?;
            }
            models::get(tx, bundle)
        })
        .await
}

/// Whether the result is what was asked for; the first thing that is not.
fn check(spec: &TrainJob, held: &Held, dataset: &Dataset, result: &Done) -> Result<(), String> {
    let manifest = &held.manifest;
    if (manifest.name.as_str(), manifest.version) != (spec.model.as_str(), spec.version) {
        return Err(format!(
            "the bundle is {} version {}, asked for was {} version {}",
            manifest.name, manifest.version, spec.model, spec.version
        ));
    }
    if manifest.labels != dataset.labels {
        return Err("the bundle's labels are not the dataset's".to_owned());
    }
    let lineage = manifest.lineage.as_ref().ok_or("the bundle names no lineage")?;
    if lineage.base != base_of(spec) || lineage.dataset != Some(spec.dataset) {
        return Err("the bundle's lineage names another base or dataset".to_owned());
    }
    if result.report.bundle != result.bundle {
        return Err(format!("the report is about bundle {}", result.report.bundle));
    }
    gate::covers(&result.report, spec.dataset, dataset).map_err(|e| e.to_string())?;
    match (base_of(spec), &result.base_report) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err("it reports on a base, but a starter has none".to_owned()),
        (Some(base), None) => Err(format!("the report on its base {base} is missing")),
        (Some(base), Some(report)) if report.bundle != base => {
            Err(format!("the base's report is about bundle {}, the base is {base}", report.bundle))
        }
        (Some(_), Some(report)) => {
            gate::covers(report, spec.dataset, dataset).map_err(|e| format!("of the base: {e}"))
        }
    }
}

fn base_of(spec: &TrainJob) -> Option<fleetloop_protocol::BundleDigest> {
    match spec.base {
        Base::Starter { .. } => None,
        Base::Bundle { bundle } => Some(bundle),
    }
}

fn report_row(report: &Report, digest: Digest, job: JobId) -> ReportRow {
    ReportRow {
        bundle: report.bundle,
        dataset: report.dataset,
        digest,
        job: Some(job),
        runtime: fleetloop_protocol::limits::shorten(&report.runtime),
    }
}
