//! Releases as the hub makes them: who may be released, the three steps, and what a start mends.
//!
//! Each operation opens the repository anew, under its lock: what is on disk decides, not what a
//! process remembers.

use std::path::Path;
use std::time::Duration;

use fleetloop_protocol::api::models::{Model, Release, ReleaseRequest};
use fleetloop_protocol::hub_keys::{HUB_KEYS_TARGET, HubKeys};
use fleetloop_protocol::limits::shorten;
use fleetloop_protocol::{BundleDigest, Digest};

use super::{CHANNEL, ReleaseError, Repository, init};
use crate::AppState;
use crate::clock::Clock;
use crate::config::Paths;
use crate::store::payloads::Blobs;
use crate::store::{StoreError, audit, registry, releases};

/// How often the repository is looked at for metadata that needs signing anew: often beside a
/// timestamp's day, so that a device never meets an expired one for want of a look.
const LOOK: Duration = Duration::from_secs(10 * 60);

/// When the operator is told that the root metadata ends, in milliseconds before.
const ROOT_WARNING_MS: u64 = 90 * 24 * 60 * 60 * 1000;

/// Makes the repository of a new hub, and stores `hub-keys.json` as an artefact. Returns the digest
/// of the root metadata, which goes into enrolment tokens.
///
/// # Errors
/// As [`init`]; the artefact store's.
pub async fn init_repository(
    paths: &Paths,
    offline_keys: &Path,
    hub_keys: &HubKeys,
    artefacts: &Blobs,
    clock: &Clock,
) -> Result<Digest, ReleaseError> {
    let (tuf, offline, keys) = (paths.tuf(), offline_keys.to_owned(), hub_keys.clone());
    let now = clock.now();
    let initial = blocking(move || init(&tuf, &offline, &keys, now)).await?;
    let bytes = initial.hub_keys_json;
    artefacts.put(Digest::of(&bytes), bytes.into()).await?;
    Ok(initial.root_digest)
}

/// Releases a bundle: intended, published, confirmed (see the module above). Again is allowed and
/// gives the same answer.
///
/// # Errors
/// [`ReleaseError::Channel`], [`ReleaseError::Gate`], [`ReleaseError::Taken`]; `NotFound` from the
/// store when the hub does not hold the bundle.
pub async fn release(
    state: &AppState,
    request: ReleaseRequest,
    who: &str,
) -> Result<Release, ReleaseError> {
    if request.channel != CHANNEL {
        return Err(ReleaseError::Channel { channel: shorten(&request.channel) });
    }
    let bundle = request.bundle;
    let model = state.store.read(move |c| registry::get(c, bundle)).await?;
    let reason = request.without_gate.as_deref().map(|reason| shorten(reason.trim()));
    let grounds = grounds(&model, reason.as_deref())?;
    let held = crate::registry::hold(&state.artefacts, bundle).await?;
    let release = Release {
        channel: CHANNEL.to_owned(),
        target: held.manifest.target_name(),
        bundle,
        released_by: who.to_owned(),
        released_at_ms: state.clock.now().0,
    };

    let intention = release.clone();
    state
        .store
        .write(move |tx| {
            releases::intend(tx, &intention)?;
            let object = format!("{CHANNEL}/{}", intention.target);
            let detail = format!("{bundle}: {grounds}");
            audit(tx, &intention.released_by, "release.intend", &object, &detail)
        })
        .await?;
    // A cut here: the next start forgets the intention.
    let (tuf, target, now) = (state.config.paths.tuf(), release.target.clone(), state.clock.now());
    let published =
        blocking(move || Repository::open(&tuf)?.publish(&target, &held.bytes, now)).await;
    if let Err(error) = published {
        // What is on disk decides: a failure after the timestamp was replaced is a release.
        settle(state).await?;
        return Err(error);
    }
    // A cut here: the next start confirms the row.
    let target = release.target.clone();
    let confirmed = state
        .store
        .write(move |tx| {
            releases::confirm(tx, CHANNEL, &target)?;
            releases::get(tx, CHANNEL, &target)
        })
        .await?;
    Ok(confirmed.unwrap_or(release))
}

/// Why a model may be released, in words for the audit log.
fn grounds(model: &Model, reason: Option<&str>) -> Result<String, ReleaseError> {
    let finding = match &model.verdict {
        Some(verdict) if verdict.passed => return Ok("the gate passed".to_owned()),
        Some(_) => "its gate failed",
        None => "no gate has judged it",
    };
    match reason {
        Some(reason) if !reason.is_empty() => Ok(format!("{finding}; reason given: {reason}")),
        _ => Err(ReleaseError::Gate { bundle: model.bundle, finding }),
    }
}

/// Brings database and repository together after a stop at any moment: intentions are confirmed or
/// forgotten, a release that only the repository has is noted, one that only the database has (a
/// repository restored from an older backup) is published again.
///
/// # Errors
/// The repository cannot be read, or the disk failed.
pub async fn reconcile(state: &AppState) -> Result<(), ReleaseError> {
    settle(state).await?;
    let targets = targets(state).await?;
    let known = state.store.read(releases::list).await?;
    for release in &known {
        let found = targets.iter().find(|(name, _)| *name == release.target);
        match found {
            Some((_, digest)) if *digest == release.bundle.0 => {}
            Some((_, found)) => {
                let target = release.target.clone();
                return Err(ReleaseError::Taken { target, found: *found });
            }
            None => {
                tracing::warn!(target_name = release.target, "released, and not in the repository");
                let bytes = state.artefacts.get(release.bundle.0).await?;
                let (tuf, target) = (state.config.paths.tuf(), release.target.clone());
                let now = state.clock.now();
                blocking(move || Repository::open(&tuf)?.publish(&target, &bytes, now)).await?;
            }
        }
    }
    for (target, digest) in targets {
        if target != HUB_KEYS_TARGET && !known.iter().any(|r| r.target == target) {
            adopt(state, target, BundleDigest(digest)).await?;
        }
    }
    Ok(())
}

/// Confirms or forgets what was intended: observe the repository, check, act.
async fn settle(state: &AppState) -> Result<(), ReleaseError> {
    let intended = state.store.read(releases::intended).await?;
    if intended.is_empty() {
        return Ok(());
    }
    let targets = targets(state).await?;
    state
        .store
        .write(move |tx| {
            for release in &intended {
                let entry = (release.target.clone(), release.bundle.0);
                if targets.contains(&entry) {
                    releases::confirm(tx, &release.channel, &release.target)?;
                } else {
                    releases::forget(tx, &release.channel, &release.target)?;
                    let object = format!("{}/{}", release.channel, release.target);
                    audit(
                        tx,
                        "hub",
                        "release.forget",
                        &object,
                        "it was cut off before it was published",
                    )?;
                }
            }
            Ok(())
        })
        .await?;
    Ok(())
}

async fn adopt(state: &AppState, target: String, bundle: BundleDigest) -> Result<(), ReleaseError> {
    let release = Release {
        channel: CHANNEL.to_owned(),
        target,
        bundle,
        released_by: "hub".to_owned(),
        released_at_ms: state.clock.now().0,
    };
    let name = release.target.clone();
    let adopted = state
        .store
        .write(move |tx| {
            registry::get(tx, bundle)?;
            releases::adopt(tx, &release)?;
            let object = format!("{}/{}", release.channel, release.target);
            audit(tx, "hub", "release.adopt", &object, "found in the repository")
        })
        .await;
    match adopted {
        Err(StoreError::NotFound { .. }) => {
            tracing::warn!(
                target_name = name,
                "in the repository, but the hub holds no such bundle"
            );
            Ok(())
        }
        other => Ok(other?),
    }
}

async fn targets(state: &AppState) -> Result<Vec<(String, Digest)>, ReleaseError> {
    let tuf = state.config.paths.tuf();
    blocking(move || Ok(Repository::open(&tuf)?.targets())).await
}

/// Signs metadata anew long before it ends, until the hub stops.
async fn refresh_loop(state: AppState) {
    let mut stopping = state.stopping.clone();
    loop {
        let (tuf, now) = (state.config.paths.tuf(), state.clock.now());
        let refreshed = blocking(move || {
            let mut repository = Repository::open(&tuf)?;
            let left = repository.root_expires().0.saturating_sub(now.0);
            if left < ROOT_WARNING_MS {
                let days = left / (24 * 60 * 60 * 1000);
                tracing::warn!(days, "the root metadata ends soon; renew it with the offline key");
            }
            repository.refresh(now)
        });
        match refreshed.await {
            Ok(true) => tracing::info!("release metadata signed anew"),
            Ok(false) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "cannot sign release metadata anew; trying again");
            }
        }
        // Both are cancel-safe: a sleep holds nothing, the stop stays.
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stopped(&mut stopping) => return,
        }
    }
}

/// Everything that moves releases, rollouts and jobs on by itself, until the hub stops.
///
/// # Errors
/// Database and repository cannot be brought together.
pub async fn run(state: AppState) -> Result<(), ReleaseError> {
    reconcile(&state).await?;
    tokio::join!(
        refresh_loop(state.clone()),
        crate::rollout::driver::run(state.clone()),
        crate::jobs::watch(state),
    );
    Ok(())
}

/// Waits until the hub stops; cancel-safe.
pub(crate) async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the sender is gone, and so the hub.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Signing and syncing are no work for a tokio worker.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, ReleaseError> + Send + 'static,
) -> Result<R, ReleaseError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ReleaseError::Panicked)?
}
