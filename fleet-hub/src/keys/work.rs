//! What is done with keys: signed anew, rotated, retired. Each is in the audit log.

use std::sync::Arc;

use fleetloop_protocol::api::hosts::Retire;
use fleetloop_protocol::api::keys::{KeyName, NextKey, RootChain};
use fleetloop_protocol::hub_keys::HubKeyUse;
use fleetloop_protocol::limits::shorten;
use tough::schema::RoleType;

use crate::AppState;
use crate::hosts;
use crate::pki::{self, Pki, PkiError};
use crate::published;
use crate::release::{self, ReleaseError, Repository};
use crate::store::{StoreError, audit};

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be done with this key.
    #[error("cannot {verb} key {key}: {reason}")]
    NotThis {
        /// What was asked.
        verb: &'static str,
        /// Of which key.
        key: KeyName,
        /// Why not, and what instead.
        reason: String,
    },
    /// The release repository.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// A certificate or another key.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The chain of roots, for whoever holds the root key.
///
/// # Errors
/// It cannot be read.
pub async fn roots(state: &AppState) -> Result<RootChain, KeyError> {
    let tuf = state.config.paths.tuf();
    let chain = blocking(move || Ok(release::root_chain(&tuf)?)).await?;
    let roots = chain.iter().map(|root| String::from_utf8_lossy(root).into_owned()).collect();
    Ok(RootChain { now_ms: state.clock.now().0, roots })
}

/// Takes the next root; again is allowed.
///
/// # Errors
/// [`ReleaseError::NotNextRoot`] says what is wrong with it.
pub async fn take_root(state: &AppState, root: String, who: &str) -> Result<(), KeyError> {
    let (tuf, now) = (state.config.paths.tuf(), state.clock.now());
    let version = blocking(move || {
        release::accept_root(&tuf, root.as_bytes(), now)?;
        Ok(release::root_chain(&tuf)?.len())
    })
    .await?;
    note(state, who, "key.root", KeyName::Root, format!("root {version}")).await
}

/// The public half of the next key of an online role, made if there is none.
///
/// # Errors
/// The key is not an online role's.
pub async fn next_key(state: &AppState, key: KeyName, who: &str) -> Result<NextKey, KeyError> {
    let role = online(key).ok_or_else(|| KeyError::NotThis {
        verb: "make the next",
        key,
        reason: "only targets, snapshot and timestamp have one".into(),
    })?;
    let tuf = state.config.paths.tuf();
    let public_key = blocking(move || Ok(release::next_online_key(&tuf, role)?)).await?;
    note(state, who, "key.next", key, public_key.id().to_string()).await?;
    Ok(NextKey { key, public_key })
}

/// Begins the life of what the key signed, or of the key, again.
///
/// # Errors
/// It takes the offline medium, or the key is not renewed but rotated.
pub async fn renew(
    state: &AppState,
    pki: &Arc<Pki>,
    key: KeyName,
    who: &str,
) -> Result<(), KeyError> {
    let not_this =
        |reason: &str| Err(KeyError::NotThis { verb: "renew", key, reason: reason.to_owned() });
    match key {
        KeyName::Targets | KeyName::Snapshot | KeyName::Timestamp => {
            let (tuf, now) = (state.config.paths.tuf(), state.clock.now());
            let role = online(key).unwrap_or(RoleType::Timestamp);
            blocking(move || Ok(Repository::open(&tuf)?.sign_anew(role, now)?)).await?;
        }
        KeyName::Receipt => drop(published::extend(state, pki, HubKeyUse::Receipt).await?),
        KeyName::Assignment => drop(published::extend(state, pki, HubKeyUse::Assignment).await?),
        KeyName::Root => {
            return not_this("it is signed offline: fleet-hub key renew root --offline-keys PATH");
        }
        KeyName::Ca | KeyName::NextCa => {
            return not_this("a CA is rotated, not renewed: fleet-hub key rotate ca");
        }
        KeyName::Server => return not_this("every start of the hub issues them: restart it"),
    }
    note(state, who, "key.renew", key, String::new()).await
}

/// Draws another key; it signs from the next start on.
///
/// # Errors
/// It takes the offline medium, or a rotation is under way.
pub async fn rotate(
    state: &AppState,
    pki: &Arc<Pki>,
    key: KeyName,
    who: &str,
) -> Result<(), KeyError> {
    let not_this =
        |reason: &str| Err(KeyError::NotThis { verb: "rotate", key, reason: reason.to_owned() });
    let (paths, now) = (state.config.paths.clone(), state.clock.now());
    match key {
        KeyName::Receipt => {
            blocking(move || Ok(pki::replace_hub_key(&paths, HubKeyUse::Receipt)?)).await?;
        }
        KeyName::Assignment => {
            blocking(move || Ok(pki::replace_hub_key(&paths, HubKeyUse::Assignment)?)).await?;
        }
        KeyName::Ca => {
            if Pki::load(&paths)?.next.is_some() || pki.next.is_some() {
                return not_this(
                    "a rotation is under way; restart the hub, or finish it: fleet-hub key retire ca",
                );
            }
            blocking(move || Ok(pki::make_next_ca(&paths, now)?)).await?;
        }
        KeyName::Root | KeyName::Targets | KeyName::Snapshot | KeyName::Timestamp => {
            return not_this("the root key signs it: add --offline-keys PATH");
        }
        KeyName::NextCa => return not_this("it takes the CA's place: fleet-hub key retire ca"),
        KeyName::Server => return not_this("every start of the hub issues them: restart it"),
    }
    note(state, who, "key.rotate", key, String::new()).await
}

/// Puts the next CA in the place of the one before, from the next start on, once every enrolled
/// device knows it and has a certificate of it.
///
/// # Errors
/// There is no next CA; devices are waited for.
pub async fn retire_ca(
    state: &AppState,
    pki: &Arc<Pki>,
    request: &Retire,
    who: &str,
) -> Result<(), KeyError> {
    let key = KeyName::Ca;
    let not_this = |reason: String| Err(KeyError::NotThis { verb: "retire", key, reason });
    if pki.next.is_none() || Pki::load(&state.config.paths)?.next.is_none() {
        return not_this(
            "the hub works with one CA; make the next one with 'fleet-hub key rotate ca', and restart \
             the hub"
                .into(),
        );
    }
    let known = hosts::known(state, pki).await?;
    let reason = match (&request.without_waiting, known.waiting.len()) {
        (_, 0) => String::new(),
        (Some(reason), count) if !reason.trim().is_empty() => {
            format!("without waiting for {count} devices: {}", shorten(reason.trim()))
        }
        (_, count) => return not_this(hosts::waits(count)),
    };
    let paths = state.config.paths.clone();
    blocking(move || Ok(pki::retire_ca(&paths)?)).await?;
    note(state, who, "key.retire", key, reason).await
}

const fn online(key: KeyName) -> Option<RoleType> {
    match key {
        KeyName::Targets => Some(RoleType::Targets),
        KeyName::Snapshot => Some(RoleType::Snapshot),
        KeyName::Timestamp => Some(RoleType::Timestamp),
        _ => None,
    }
}

async fn note(
    state: &AppState,
    who: &str,
    action: &'static str,
    key: KeyName,
    detail: String,
) -> Result<(), KeyError> {
    let who = who.to_owned();
    let noted = state.store.write(move |tx| audit(tx, &who, action, key.as_str(), &detail));
    Ok(noted.await?)
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, KeyError> + Send + 'static,
) -> Result<R, KeyError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ReleaseError::Panicked)?
}
