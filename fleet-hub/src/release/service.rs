//! Releases as the hub makes them: who may be released, the three steps, and what a start mends.
//!
//! Each operation opens the repository anew, under its lock: what is on disk decides, not what a
//! process remembers.

use std::path::Path;
use std::time::Duration;

use fleetloop_protocol::api::models::{Model, Release, ReleaseRequest};
use fleetloop_protocol::api::reports::Outcome;
use fleetloop_protocol::limits::shorten;
use fleetloop_protocol::{BundleDigest, Digest};
use tokio::sync::broadcast::error::RecvError;
use tough::schema::RoleType;

use super::{CHANNEL, ReleaseError, Repository, init};
use crate::clock::Clock;
use crate::config::Paths;
use crate::jobs::disputes;
use crate::keys;
use crate::published::{self, Documents};
use crate::store::payloads::Blobs;
use crate::store::{StoreError, audit, registry, releases, restores};
use crate::{AppState, HubEvent};

/// How often the repository is looked at for metadata that needs signing anew: often beside a
/// timestamp's day, so that a device never meets an expired one for want of a look.
const LOOK: Duration = Duration::from_secs(10 * 60);

/// Looks in a day.
const LOOKS_A_DAY: u32 = 144;

/// Makes the repository of a new hub, and stores the hub's own documents as artefacts. Returns the digest
/// of the root metadata, which goes into enrolment tokens.
///
/// # Errors
/// As [`init`]; the artefact store's.
pub async fn init_repository(
    paths: &Paths,
    offline_keys: &Path,
    documents: &Documents,
    artefacts: &Blobs,
    clock: &Clock,
) -> Result<Digest, ReleaseError> {
    let (tuf, offline, own) = (paths.tuf(), offline_keys.to_owned(), documents.files()?);
    for (_, bytes) in &own {
        artefacts.put(Digest::of(bytes), bytes.clone().into()).await?;
    }
    let now = clock.now();
    Ok(blocking(move || init(&tuf, &offline, &own, now)).await?.root_digest)
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
    let (model, disputed) = state
        .store
        .read(move |c| {
            let model = registry::get(c, bundle)?;
            let disputed = disputes::concerns(c, &model)?;
            Ok((model, disputed))
        })
        .await?;
    let reason = request.without_gate.as_deref().map(|reason| shorten(reason.trim()));
    let grounds = grounds(&model, disputed, request.accept_few, reason.as_deref())?;
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
fn grounds(
    model: &Model,
    disputed: bool,
    accept_few: bool,
    reason: Option<&str>,
) -> Result<String, ReleaseError> {
    let outcome = model.verdict.as_ref().map(|verdict| verdict.outcome);
    let finding = match outcome {
        _ if disputed => "a report that it was judged by is in dispute",
        Some(Outcome::Passed) => return Ok("the gate passed".to_owned()),
        Some(Outcome::TooFew) if accept_few => {
            return Ok("too few pictures to judge, which was accepted".to_owned());
        }
        Some(Outcome::TooFew) => {
            "its gate has too few pictures to judge it (see 'fleet-hub model show'; label or import \
             more of them, or accept that with --accept-few)"
        }
        Some(Outcome::Failed) => "its gate failed",
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
        let is_own = published::TARGETS.contains(&&*target);
        if !is_own && !known.iter().any(|r| r.target == target) {
            adopt(state, target, BundleDigest(digest)).await?;
        }
    }
    Ok(())
}

/// Signs all metadata anew if the last was signed before this hub was restored from a backup: its
/// versions are then seconds of now, and so ahead of all that devices have seen.
///
/// # Errors
/// The repository cannot be read or signed for.
pub async fn catch_up(state: &AppState) -> Result<(), ReleaseError> {
    let Some(restored) = state.store.read(restores::last).await? else { return Ok(()) };
    let (tuf, now) = (state.config.paths.tuf(), state.clock.now());
    let signed = blocking(move || {
        let mut repository = Repository::open(&tuf)?;
        // Whole seconds: at the border it is signed once more, which does no harm.
        let is_behind = repository.signed_at() <= restored.restored_at;
        if is_behind {
            repository.sign_anew(RoleType::Targets, now)?;
        }
        Ok(is_behind)
    });
    if signed.await? {
        tracing::info!("release metadata signed anew, for this hub was restored from a backup");
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

/// Signs metadata anew long before it ends and looks at all keys, until the hub stops. What somebody
/// must do about a key is logged once a day.
async fn refresh_loop(state: AppState) {
    let mut stopping = state.stopping.clone();
    let mut looks = 0_u32;
    loop {
        let (tuf, now) = (state.config.paths.tuf(), state.clock.now());
        let refreshed = blocking(move || Repository::open(&tuf)?.refresh(now));
        match refreshed.await {
            Ok(true) => tracing::info!("release metadata signed anew"),
            Ok(false) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "cannot sign release metadata anew; trying again");
            }
        }
        look_at_keys(&state, looks.is_multiple_of(LOOKS_A_DAY)).await;
        looks = looks.wrapping_add(1);
        // Both are cancel-safe: a sleep holds nothing, the stop stays.
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stopped(&mut stopping) => return,
        }
    }
}

/// Publishes each revocation as it happens, until the hub stops.
async fn follow_revocations(state: AppState) {
    let (mut events, mut stopping) = (state.events.subscribe(), state.stopping.clone());
    loop {
        // Both are cancel-safe: an event that is not received waits, the stop stays.
        let event = tokio::select! {
            event = events.recv() => event,
            () = stopped(&mut stopping) => return,
        };
        match event {
            Ok(HubEvent::DeviceRevoked { .. }) | Err(RecvError::Lagged(_)) => {
                if let Err(error) = published::publish(&state, &state.pki).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(
                        error,
                        "cannot publish a revocation; the next one, or the next start, does"
                    );
                }
            }
            Ok(_) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn look_at_keys(state: &AppState, aloud: bool) {
    match keys::read(state).await {
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "cannot look at the hub's keys; trying again");
        }
        Ok(_) if aloud => {
            for warning in state.vitals.warnings(state.clock.now()) {
                tracing::warn!(warning, "a key needs somebody");
            }
        }
        Ok(_) => {}
    }
}

/// Everything that moves releases, rollouts and jobs on by itself, until the hub stops.
///
/// # Errors
/// Database and repository cannot be brought together.
pub async fn run(state: AppState) -> Result<(), ReleaseError> {
    match reconcile(&state).await {
        // The start logged it; what needs no new release goes on.
        Err(ReleaseError::KeyLost { .. }) => {}
        other => other?,
    }
    tokio::join!(
        refresh_loop(state.clone()),
        follow_revocations(state.clone()),
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
