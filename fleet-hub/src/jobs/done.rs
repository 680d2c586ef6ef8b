//! A job's result: held against what was asked, then a model.

use fleetloop_protocol::api::datasets::Dataset;
use fleetloop_protocol::api::jobs::{Base, Done, JobId, JobKind, JobSpec};
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::Report;
use fleetloop_protocol::{BundleDigest, Digest};

use super::disputes::{self, Compared};
use super::lease::{Claim, Heard};
use super::{conflict, left_out};
use crate::AppState;
use crate::gate::{self, Policy};
use crate::registry::{self, Held};
use crate::store::registry::Listing;
use crate::store::reports::{self as stored, NewReport};
use crate::store::{StoreError, audit, jobs as rows, registry as models};

/// How often a result is compared again because other reports came meanwhile.
const COMPARED: usize = 5;

/// What became of a result.
enum Ended {
    /// The model is listed.
    Taken(Box<Model>),
    /// It is held.
    Held(String),
    /// Reports that it was not compared with came meanwhile.
    Moved,
}

/// Ends a job with the bundle that a worker made or evaluated: checks it, compares its reports with stored
/// ones, lists a new model and lets the gate judge it. Telling it again gives the same answer. A result whose
/// report contradicts a stored one is held: nothing of it is listed or judged until an operator decides.
///
/// # Errors
/// [`StoreError::Conflict`] under a lease that is not the job's last, with another token, or when the
/// result is held; [`StoreError::Invalid`] when an artefact was not uploaded or the result is not what
/// was asked: the job is untouched then, and the worker may mend it, or fail the job.
pub async fn done(
    state: &AppState,
    id: JobId,
    result: Done,
    who: &str,
) -> Result<Model, StoreError> {
    let job = state.store.read(move |c| rows::get(c, id)).await?;
    let bundle = result.bundle;
    // Observe before anything is written: a stale worker costs nothing.
    let claim = Claim { lease: &result.lease, holder: who };
    let heard = job.record.clone().done(claim, bundle).map_err(|e| conflict(id, &e))?;
    if heard == Heard::Again {
        return state.store.read(move |c| models::get(c, bundle)).await;
    }
    let examined = examine(state, &job, &result, who).await?;
    for _ in 0..COMPARED {
        let compared = disputes::compare(state, &result).await?;
        match end(state, &examined, &result, who, compared).await? {
            Ended::Taken(model) => return Ok(*model),
            Ended::Held(reason) => {
                let what = format!(
                    "cannot take the result of job {}: it is held until an operator decides which \
                     report counts ('fleet-hub report list'): {reason}",
                    id.0
                );
                return Err(StoreError::Conflict { what });
            }
            Ended::Moved => {}
        }
    }
    let what =
        format!("cannot take the result of job {}: other reports keep coming; try again", id.0);
    Err(StoreError::Conflict { what })
}

/// A result that is what was asked for, ready to be stored.
struct Examined {
    id: JobId,
    bundle: BundleDigest,
    /// The new model; none of an evaluation.
    made: Option<(Model, Listing)>,
    reports: Vec<NewReport>,
    /// The whole result as an artefact, for when it is held.
    document: Digest,
}

/// Holds a result against what was asked, and stores its reports as artefacts.
async fn examine(
    state: &AppState,
    job: &rows::Stored,
    result: &Done,
    who: &str,
) -> Result<Examined, StoreError> {
    let id = job.id;
    let refused = |reason: String| StoreError::Invalid {
        what: format!("cannot take the result of job {}: {reason}", id.0),
    };
    let held = registry::admit(&state.artefacts, result.bundle).await?;
    let dataset = registry::dataset(&state.artefacts, job.spec.dataset).await?;
    let dataset = left_out::without(state, dataset, &result.left_out).await?;
    match job.spec.kind {
        JobKind::Train => {
            check(&job.spec, &held, &dataset, result).map_err(refused)?;
            let record = result.run_record.ok_or_else(|| refused("it has no run record".into()))?;
            if !state.artefacts.exists(record).await? {
                return Err(refused(format!("run record {record} is not stored; upload it first")));
            }
        }
        JobKind::Evaluate => check_evaluation(&job.spec, &dataset, result).map_err(refused)?,
    }
    let mut reports = Vec::new();
    for report in std::iter::once(&result.report).chain(&result.base_report) {
        let digest = registry::store_document(&state.artefacts, report).await?;
        reports.push(new_report(report, digest, id, who));
    }
    let document = registry::store_document(&state.artefacts, result).await?;
    let made = match job.spec.kind {
        JobKind::Train => Some((model(state, job, result), held.listing())),
        JobKind::Evaluate => None,
    };
    Ok(Examined { id, bundle: result.bundle, made, reports, document })
}

/// The new model, judged.
fn model(state: &AppState, job: &rows::Stored, result: &Done) -> Model {
    let verdict = gate::verdict(&result.report, result.base_report.as_ref(), &Policy::default());
    Model {
        bundle: result.bundle,
        name: job.spec.model.clone(),
        version: job.spec.version,
        base: base_of(&job.spec),
        dataset: Some(job.spec.dataset),
        run_record: result.run_record,
        job: Some(job.id),
        verdict: Some(verdict),
        released_as: Vec::new(),
        created_by: job.requested_by.clone(),
        created_at_ms: state.clock.now().0,
    }
}

/// Lists a new model and ends the job, or holds the result, in one transaction with the reports.
async fn end(
    state: &AppState,
    examined: &Examined,
    result: &Done,
    who: &str,
    compared: Compared,
) -> Result<Ended, StoreError> {
    let Examined { id, bundle, made, reports, document } = examined;
    let (id, bundle, made) = (*id, *bundle, made.clone());
    let (reports, document) = (reports.clone(), *document);
    let (lease, who, now) = (result.lease.clone(), who.to_owned(), state.clock.now());
    let write = state.store.write(move |tx| {
        if !compared.still_holds(tx)? {
            return Ok(Ended::Moved);
        }
        let mut job = rows::get(tx, id)?;
        let claim = Claim { lease: &lease, holder: &who };
        if let Some(dispute) = &compared.dispute {
            let heard = job.record.hold(claim, bundle, document, &dispute.why);
            if heard.map_err(|e| conflict(id, &e))? == Heard::New {
                disputes::keep(tx, dispute, &reports, now)?;
                rows::save(tx, id, &job.record, job.progress.as_ref())?;
                audit(tx, &who, "job.held", &id.0.to_string(), &dispute.why)?;
            }
            return Ok(Ended::Held(dispute.why.clone()));
        }
        if job.record.done(claim, bundle).map_err(|e| conflict(id, &e))? == Heard::New {
            if let Some((model, listing)) = &made {
                models::insert(tx, model, listing)?;
            }
            for report in &reports {
                stored::add(tx, report, now)?;
            }
            rows::save(tx, id, &job.record, job.progress.as_ref())?;
            let verdict = made.as_ref().map(|(model, _)| model.verdict.as_ref());
            let gate = match verdict {
                Some(verdict) => verdict.map_or("not asked", |v| gate::word(v.outcome)),
                None => "evaluated only",
            };
            audit(tx, &who, "job.done", &id.0.to_string(), &format!("{bundle}, gate: {gate}"))?;
        }
        Ok(Ended::Taken(Box::new(models::get(tx, bundle)?)))
    });
    write.await
}

/// Whether the result is what was asked for; the first thing that is not.
fn check(spec: &JobSpec, held: &Held, dataset: &Dataset, result: &Done) -> Result<(), String> {
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

/// Whether the result is the evaluation that was asked for; the first thing that is not.
fn check_evaluation(spec: &JobSpec, dataset: &Dataset, result: &Done) -> Result<(), String> {
    if base_of(spec) != Some(result.bundle) {
        return Err(format!("asked for was another bundle than {}", result.bundle));
    }
    if result.report.bundle != result.bundle {
        return Err(format!("the report is about bundle {}", result.report.bundle));
    }
    if result.base_report.is_some() || result.run_record.is_some() {
        return Err("an evaluation has one report and no run record".to_owned());
    }
    gate::covers(&result.report, spec.dataset, dataset).map_err(|e| e.to_string())
}

fn base_of(spec: &JobSpec) -> Option<BundleDigest> {
    match spec.base {
        Base::Starter { .. } => None,
        Base::Bundle { bundle } => Some(bundle),
    }
}

fn new_report(report: &Report, digest: Digest, job: JobId, who: &str) -> NewReport {
    NewReport {
        bundle: report.bundle,
        dataset: report.dataset,
        digest,
        job,
        worker: who.to_owned(),
        runtime: fleetloop_protocol::limits::shorten(&report.runtime),
        items: report.outputs.len() as u64,
        right: report.outputs.iter().filter(|output| output.is_correct()).count() as u64,
    }
}
