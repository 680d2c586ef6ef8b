//! A restored hub learns which devices were revoked since its backup: a device shows the list that
//! this hub signed then.
//!
//! Invariant: nothing counts but the hub's own signature. The metadata may be old and expired, for it
//! only proves that this hub once published the list; a list only grows, so no revocation is wrong by
//! being late. A device that shows something else changes nothing.

use fleetloop_protocol::revoked::{NewerList, REVOKED_BYTES, REVOKED_TARGET, RevokedList};
use fleetloop_protocol::{DeviceId, Digest};

use crate::release::{ReleaseError, Repository};
use crate::state::{AppState, HubEvent};
use crate::store::findings::{self, Kind, NewFinding};
use crate::store::{StoreError, strangers};

/// Why a list is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// It is not a list that this hub published: what is wrong.
    #[error("cannot take the list of revoked devices: {0}")]
    Refused(String),
    /// The release repository cannot be read.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes over what `from` shows. Returns how many devices are revoked by it that were not.
///
/// # Errors
/// [`LearnError`]; nothing is changed then.
pub async fn learn(
    state: &AppState,
    from: &DeviceId,
    shown: NewerList,
) -> Result<usize, LearnError> {
    let refused = |reason: &str| LearnError::Refused(reason.to_owned());
    if shown.list.len() > REVOKED_BYTES {
        return Err(refused("it is too long"));
    }
    let list: RevokedList = serde_json::from_str(&shown.list)
        .map_err(|error| LearnError::Refused(error.to_string()))?;
    let digest = Digest::of(shown.list.as_bytes());
    let tuf = state.config.paths.tuf();
    let targets = shown.targets.into_bytes();
    let named = tokio::task::spawn_blocking(move || {
        Repository::open(&tuf)?.once_named(&targets, REVOKED_TARGET)
    })
    .await
    .map_err(|_| ReleaseError::Panicked)??;
    if named != Some(digest) {
        return Err(refused("this hub never signed metadata that names it"));
    }
    let (shown_by, now) = (from.clone(), state.clock.now());
    let ended = state
        .store
        .write(move |tx| {
            let ended = strangers::absorb(tx, &list, &shown_by)?;
            let detail = format!(
                "the device has a list of revoked devices that is newer than this hub's: {} enrolled \
                 ones are on it",
                ended.len()
            );
            let found = NewFinding {
                kind: Kind::HubOlder,
                device: None,
                subject: REVOKED_TARGET,
                detail: &detail,
                at: now,
            };
            findings::record(tx, &found)?;
            Ok(ended)
        })
        .await?;
    for device in &ended {
        tracing::warn!(%device, %from, "revoked: this hub had revoked it before it was restored");
        state.tell(HubEvent::DeviceRevoked { device: device.clone() });
    }
    Ok(ended.len())
}
