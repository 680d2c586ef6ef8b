//! Jobs, training and evaluations: asked for by people, leased by workers, ended by a bundle or by a
//! reason.
//!
//! What a worker says is held against what was asked ([`done`]): name and version, base and
//! dataset, every file stored, the report complete, and no contradiction to a stored report
//! ([`disputes`]). Then the model is listed and the gate judges it, or the report on it is stored, in one
//! transaction with the job's end. A worker may die at any moment and so may the hub:
//! the state is in the database, [`mod@lease`] decides, and every answer may be asked for again.

pub mod disputes;
mod done;
pub mod http;
pub mod lease;
mod left_out;

use std::time::Duration;

use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::jobs::{
    Base, EvaluateRequest, Job, JobFailed, JobId, JobKind, JobSpec, Lease, Renew, TrainRequest,
};
use fleetloop_protocol::keys::random_bytes;
use fleetloop_protocol::limits::shorten;

pub use done::done;

use crate::AppState;
use crate::registry;
use crate::store::{StoreError, audit, jobs as rows, registry as models};
use lease::{Claim, Refused};

/// The longest recipe, in bytes.
const RECIPE_BYTES: usize = 64 * 1024;

/// How often jobs are looked through for leases that ran out for the last time.
const LOOK: Duration = Duration::from_secs(5);

/// Queues a training job.
///
/// # Errors
/// [`StoreError::NotFound`] for a base or dataset that the hub does not hold,
/// [`StoreError::Invalid`] for a name, recipe or dataset that cannot be trained with.
pub async fn request(
    state: &AppState,
    request: TrainRequest,
    who: &str,
) -> Result<Job, StoreError> {
    check(state, &request).await?;
    let (now, who) = (state.clock.now(), who.to_owned());
    state
        .store
        .write(move |tx| {
            if let Base::Bundle { bundle } = &request.base {
                models::get(tx, *bundle)?;
            }
            let job = rows::queue(tx, request, &who, now)?;
            let what = format!("{} version {}", job.spec.model, job.spec.version);
            audit(tx, &who, "job.request", &job.id.0.to_string(), &what)?;
            Ok(job.to_api(now))
        })
        .await
}

/// Queues an evaluation of a model by a dataset's gate items.
///
/// # Errors
/// [`StoreError::NotFound`] for a model or dataset that the hub does not hold, [`StoreError::Conflict`]
/// when their labels differ.
pub async fn evaluate(
    state: &AppState,
    bundle: BundleDigest,
    request: EvaluateRequest,
    who: &str,
) -> Result<Job, StoreError> {
    let model = state.store.read(move |c| models::get(c, bundle)).await?;
    let held = registry::hold(&state.artefacts, bundle).await?;
    let dataset = registry::dataset(&state.artefacts, request.dataset).await?;
    if held.manifest.labels != dataset.labels {
        let what = format!(
            "cannot evaluate {}/{} on dataset {}: its labels are {}, the dataset's {}",
            model.name,
            model.version,
            request.dataset.short(),
            held.manifest.labels.join(", "),
            dataset.labels.join(", ")
        );
        return Err(StoreError::Conflict { what });
    }
    let spec = JobSpec {
        kind: JobKind::Evaluate,
        model: model.name,
        version: model.version,
        base: Base::Bundle { bundle },
        dataset: request.dataset,
        recipe: String::new(),
        seed: 0,
    };
    let (now, who) = (state.clock.now(), who.to_owned());
    let queued = state.store.write(move |tx| {
        let job = rows::add(tx, spec, &who, now)?;
        let what = format!("evaluate {} version {}", job.spec.model, job.spec.version);
        audit(tx, &who, "job.request", &job.id.0.to_string(), &what)?;
        Ok(job.to_api(now))
    });
    queued.await
}

async fn check(state: &AppState, request: &TrainRequest) -> Result<(), StoreError> {
    let invalid = |what: String| StoreError::Invalid { what: format!("cannot train: {what}") };
    let name = request.model.as_bytes();
    let allowed = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if !(1..=48).contains(&name.len()) || !name.iter().all(allowed) {
        let name = shorten(&request.model);
        return Err(invalid(format!(
            "model name {name:?} is not 1 to 48 of a-z, 0-9, '_' and '-'"
        )));
    }
    if request.recipe.len() > RECIPE_BYTES {
        return Err(invalid(format!("the recipe has over {RECIPE_BYTES} bytes")));
    }
    if let Err(error) = toml::from_str::<toml::Table>(&request.recipe) {
        return Err(invalid(format!("the recipe is not TOML: {}", error.message())));
    }
    if let Base::Starter { kind, input } = &request.base {
        let sides =
            (1..=4).contains(&input.len()) && input.iter().all(|n| (1..=16_384).contains(n));
        if kind.is_empty() || kind.len() > 48 || !sides {
            return Err(invalid("the starter needs a kind and an input like 1x28x28".to_owned()));
        }
    }
    let dataset = registry::dataset(&state.artefacts, request.dataset).await?;
    if dataset.items.is_empty() {
        return Err(invalid(format!("dataset {} is empty", request.dataset)));
    }
    Ok(())
}

/// Gives the oldest job that can be leased to `worker`, who calls with the token `holder`; none when
/// there is none.
///
/// # Errors
/// The database failed.
pub async fn lease(
    state: &AppState,
    worker: &str,
    holder: &str,
) -> Result<Option<Lease>, StoreError> {
    let secret: [u8; 16] = random_bytes()
        .map_err(|e| StoreError::Invalid { what: format!("cannot lease a job: {e}") })?;
    let lease: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let (now, worker, holder) = (state.clock.now(), shorten(worker), holder.to_owned());
    state
        .store
        .write(move |tx| {
            for mut job in rows::open(tx)? {
                let claim = Claim { lease: &lease, holder: &holder };
                if job.record.lease(claim, &worker, now) {
                    rows::save(tx, job.id, &job.record, None)?;
                    return Ok(Some(Lease { job: job.id, lease, spec: job.spec }));
                }
            }
            Ok(None)
        })
        .await
}

/// Keeps a lease up and notes how far the job is.
///
/// # Errors
/// [`StoreError::Conflict`] under a lease that is not the job's last, or with another token.
pub async fn renew(state: &AppState, id: JobId, renew: Renew, who: &str) -> Result<(), StoreError> {
    let (now, who) = (state.clock.now(), who.to_owned());
    state
        .store
        .write(move |tx| {
            let mut job = rows::get(tx, id)?;
            let claim = Claim { lease: &renew.lease, holder: &who };
            job.record.renew(claim, now).map_err(|e| conflict(id, &e))?;
            let mut progress = renew.progress;
            progress.phase = shorten(&progress.phase);
            rows::save(tx, id, &job.record, Some(&progress))
        })
        .await
}

/// Ends a job that cannot be done.
///
/// # Errors
/// [`StoreError::Conflict`] under a lease that is not the job's last, or with another token.
pub async fn failed(
    state: &AppState,
    id: JobId,
    end: JobFailed,
    who: &str,
) -> Result<(), StoreError> {
    let who = who.to_owned();
    state
        .store
        .write(move |tx| {
            let mut job = rows::get(tx, id)?;
            let reason = shorten(&end.reason);
            let claim = Claim { lease: &end.lease, holder: &who };
            let heard = job.record.failed(claim, &reason).map_err(|e| conflict(id, &e))?;
            if heard == lease::Heard::New {
                rows::save(tx, id, &job.record, job.progress.as_ref())?;
                audit(tx, &who, "job.failed", &id.0.to_string(), &reason)?;
            }
            Ok(())
        })
        .await
}

/// Gives up jobs whose last attempt ran out.
///
/// # Errors
/// The database failed.
pub async fn give_up(state: &AppState) -> Result<(), StoreError> {
    let now = state.clock.now();
    let lost = move |job: &rows::Stored| job.record.clone().give_up(now);
    if !state.store.read(move |c| Ok(rows::open(c)?.iter().any(lost))).await? {
        return Ok(());
    }
    state
        .store
        .write(move |tx| {
            for mut job in rows::open(tx)? {
                if job.record.give_up(now) {
                    rows::save(tx, job.id, &job.record, job.progress.as_ref())?;
                    audit(tx, "hub", "job.failed", &job.id.0.to_string(), "its workers were lost")?;
                }
            }
            Ok(())
        })
        .await
}

/// Looks for lost jobs until the hub stops.
pub(crate) async fn watch(state: AppState) {
    let mut stopping = state.stopping.clone();
    loop {
        // Both are cancel-safe: a sleep holds nothing, the stop stays.
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = crate::release::stopped(&mut stopping) => return,
        }
        if let Err(error) = give_up(&state).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "cannot look for lost jobs; trying again");
        }
        if let Err(error) = disputes::go_on(&state).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "cannot look for held jobs; trying again");
        }
    }
}

fn conflict(id: JobId, refused: &Refused) -> StoreError {
    StoreError::Conflict { what: format!("job {}: {refused}", id.0) }
}

#[cfg(test)]
mod tests;
