//! What the hub publishes of itself: `hub-keys.json`, the keys that sign receipts and orders, `hub-addresses.json`,
//! where it is and which CAs vouch for it, and `revoked.json`, the devices it has revoked. All are
//! released targets.
//!
//! Each start publishes what its files say ([`publish`]), before anything listens: so a device finds
//! a new key in the metadata before it meets a message signed by it. What is published already is
//! left alone. A generation is the second in which it was made, or one more than the last.

use std::sync::Arc;

use fleetloop_protocol::hub_addresses::{HUB_ADDRESSES_TARGET, HubAddresses};
use fleetloop_protocol::hub_keys::{HUB_KEYS_TARGET, HubKey, HubKeyUse, HubKeys};
use fleetloop_protocol::keys::PublicKey;
use fleetloop_protocol::revoked::{REVOKED_DEVICES, REVOKED_TARGET, RevokedList};
use fleetloop_protocol::{Digest, UnixMillis};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::AppState;
use crate::config::Config;
use crate::pki::Pki;
use crate::release::{ReleaseError, Repository};
use crate::store::strangers;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a receipt or assignment key is good for, in milliseconds. With a third left it is
/// extended.
pub const HUB_KEY_LIFE_MS: u64 = 10 * 365 * DAY_MS;

/// How long devices accept a key after its successor signs, in milliseconds: for messages on their way.
pub const OVERLAP_MS: u64 = 30 * DAY_MS;

/// The most keys of one use that are published; the oldest goes first.
const KEYS: usize = 16;

/// Their targets' names.
pub const TARGETS: [&str; 3] = [HUB_KEYS_TARGET, HUB_ADDRESSES_TARGET, REVOKED_TARGET];

/// The three documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// `hub-keys.json`
    pub keys: HubKeys,
    /// `hub-addresses.json`
    pub addresses: HubAddresses,
    /// `revoked.json`
    pub revoked: RevokedList,
}

impl Documents {
    /// What a hub with these keys and this configuration publishes first.
    pub fn first(config: &Config, pki: &Pki, now: UnixMillis) -> Self {
        Self {
            keys: keys(&HubKeys { keys: vec![] }, pki, now),
            addresses: addresses(None, config, pki, now),
            revoked: RevokedList::default(),
        }
    }

    /// What is published now.
    ///
    /// # Errors
    /// One of them is missing or damaged.
    pub fn read(repository: &Repository) -> Result<Self, ReleaseError> {
        Ok(Self {
            keys: one(repository, HUB_KEYS_TARGET)?,
            addresses: one(repository, HUB_ADDRESSES_TARGET)?,
            revoked: one(repository, REVOKED_TARGET)?,
        })
    }

    /// What is to be published after this.
    fn next(&self, config: &Config, pki: &Pki, revoked: &RevokedList, now: UnixMillis) -> Self {
        Self {
            keys: keys(&self.keys, pki, now),
            addresses: addresses(Some(&self.addresses), config, pki, now),
            revoked: revoked.newest(REVOKED_DEVICES),
        }
    }

    /// Each with its target's name, as published.
    ///
    /// # Errors
    /// None in practice: they are plain.
    pub fn files(&self) -> Result<[(&'static str, Vec<u8>); 3], ReleaseError> {
        Ok([
            (HUB_KEYS_TARGET, json(HUB_KEYS_TARGET, &self.keys)?),
            (HUB_ADDRESSES_TARGET, json(HUB_ADDRESSES_TARGET, &self.addresses)?),
            (REVOKED_TARGET, json(REVOKED_TARGET, &self.revoked)?),
        ])
    }
}

/// Publishes what this hub's files say now, and keeps it as artefacts.
///
/// # Errors
/// The repository cannot be read or signed for; the disk's.
pub async fn publish(state: &AppState, pki: &Arc<Pki>) -> Result<Documents, ReleaseError> {
    put(state, pki, |_| {}).await
}

/// The same with receipt and assignment keys whose life begins again.
///
/// # Errors
/// As [`publish`].
pub async fn extend(
    state: &AppState,
    pki: &Arc<Pki>,
    usage: HubKeyUse,
) -> Result<Documents, ReleaseError> {
    let current = match usage {
        HubKeyUse::Receipt => pki.receipt.public(),
        HubKeyUse::Assignment => pki.assignment.public(),
    };
    put(state, pki, move |last| {
        let is_it = |key: &HubKey| key.usage == usage && key.public_key == current;
        // It is published as one that is not known yet, so its life begins.
        last.keys.keys.retain(|key| !is_it(key));
    })
    .await
}

async fn put(
    state: &AppState,
    pki: &Arc<Pki>,
    change: impl FnOnce(&mut Documents) + Send + 'static,
) -> Result<Documents, ReleaseError> {
    let (config, pki, now) = (Arc::clone(&state.config), Arc::clone(pki), state.clock.now());
    let artefacts = state.artefacts.clone();
    let tuf = config.paths.tuf();
    let revoked = state.store.read(strangers::revoked).await?;
    let next = {
        let tuf = tuf.clone();
        let made = tokio::task::spawn_blocking(move || {
            let mut last = Documents::read(&Repository::open(&tuf)?)?;
            change(&mut last);
            Ok::<_, ReleaseError>(last.next(&config, &pki, &revoked, now))
        });
        made.await.map_err(|_| ReleaseError::Panicked)??
    };
    let files = next.files()?;
    for (_, bytes) in &files {
        // An artefact that nobody names is no harm, a name without an artefact would be.
        let digest = Digest::of(bytes);
        // What is there needs no room: a hub with a full disk starts all the same.
        if !artefacts.exists(digest).await? {
            artefacts.put(digest, bytes.clone().into()).await?;
        }
    }
    let published = tokio::task::spawn_blocking(move || {
        let mut repository = Repository::open(&tuf)?;
        for (target, bytes) in files {
            repository.publish_own(target, &bytes, now)?;
        }
        Ok::<_, ReleaseError>(())
    });
    published.await.map_err(|_| ReleaseError::Panicked)??;
    Ok(next)
}

/// The keys that sign now, good for long enough; and those that signed before, for a while.
fn keys(last: &HubKeys, pki: &Pki, now: UnixMillis) -> HubKeys {
    let uses = [
        (HubKeyUse::Receipt, pki.receipt.public()),
        (HubKeyUse::Assignment, pki.assignment.public()),
    ];
    let keys = uses.into_iter().flat_map(|(usage, current)| of_use(last, usage, current, now));
    HubKeys { keys: keys.collect() }
}

fn of_use(last: &HubKeys, usage: HubKeyUse, current: PublicKey, now: UnixMillis) -> Vec<HubKey> {
    let known = last.keys.iter().filter(|key| key.usage == usage);
    let (mut same, before): (Vec<HubKey>, Vec<HubKey>) =
        known.cloned().partition(|key| key.public_key == current);
    let end = UnixMillis(now.0.saturating_add(HUB_KEY_LIFE_MS));
    let mut key = same.pop().unwrap_or(HubKey {
        public_key: current,
        usage,
        not_before: UnixMillis(0),
        not_after: UnixMillis(0),
    });
    if key.not_after.0.saturating_sub(now.0) < HUB_KEY_LIFE_MS / 3 {
        key.not_after = end;
    }
    let overlap = UnixMillis(now.0.saturating_add(OVERLAP_MS));
    let still_good = before.into_iter().filter_map(|key| {
        let not_after = key.not_after.min(overlap);
        (not_after > now).then_some(HubKey { not_after, ..key })
    });
    std::iter::once(key).chain(still_good).take(KEYS).collect()
}

/// Where the hub is by its configuration; the generation of `last` when that says the same.
fn addresses(
    last: Option<&HubAddresses>,
    config: &Config,
    pki: &Pki,
    now: UnixMillis,
) -> HubAddresses {
    let next = HubAddresses {
        generation: last.map_or(0, |last| last.generation),
        device_urls: config.device_urls(),
        brokers: config.brokers(),
        authorities: pki.accepted(),
    };
    match last {
        Some(last) if last.says_the_same(&next) => next,
        _ => HubAddresses { generation: (next.generation + 1).max(now.0 / 1000), ..next },
    }
}

fn one<T: DeserializeOwned>(repository: &Repository, target: &str) -> Result<T, ReleaseError> {
    let bytes = repository.read_own(target)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| ReleaseError::Damaged { file: target.into(), reason: e.to_string() })
}

fn json(target: &str, document: &impl Serialize) -> Result<Vec<u8>, ReleaseError> {
    serde_json::to_vec_pretty(document)
        .map_err(|e| ReleaseError::Damaged { file: target.into(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::keys::SigningKey;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn public() -> PublicKey {
        SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap().public()
    }

    fn later(days: u64) -> UnixMillis {
        UnixMillis(NOW.0 + days * DAY_MS)
    }

    fn published(last: &HubKeys, current: PublicKey, now: UnixMillis) -> HubKeys {
        HubKeys { keys: of_use(last, HubKeyUse::Receipt, current, now) }
    }

    #[test]
    fn a_key_is_extended_with_a_third_of_its_life_left_and_not_before() {
        let (key, none) = (public(), HubKeys { keys: vec![] });
        let first = published(&none, key, NOW);
        assert_eq!(published(&first, key, later(2400)), first);
        let extended = published(&first, key, later(2500));
        assert_eq!(extended.keys[0].not_after.0, later(2500).0 + HUB_KEY_LIFE_MS);
        assert_eq!(extended.keys.len(), 1);
    }

    #[test]
    fn a_rotated_key_is_accepted_for_a_month_more_and_its_end_does_not_move() {
        let (old, new) = (public(), public());
        let first = published(&HubKeys { keys: vec![] }, old, NOW);
        let second = published(&first, new, NOW);
        let accepted = |keys: &HubKeys, key: PublicKey, at: UnixMillis| {
            keys.ring(HubKeyUse::Receipt, at).get(&key.id()).is_some()
        };
        assert!(accepted(&second, old, later(29)) && accepted(&second, new, later(29)));
        assert!(!accepted(&second, old, later(31)) && accepted(&second, new, later(31)));
        assert_eq!(published(&second, new, later(20)), second);
        assert_eq!(published(&second, new, later(40)).keys.len(), 1);
    }
}
