//! The hub's keys: what each signs, when that ends, and what to do then. `docs/keys.md` is the same
//! for people.
//!
//! [`list`] is a pure function of [`Facts`]; [`look`] reads them. What ends by itself if nobody acts
//! (the root, the CA) warns months before; what the hub renews by itself warns only when that failed.

pub mod clock;
mod facts;
pub mod http;
mod work;

use std::sync::Arc;

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::keys::{KeyName, KeyState};

pub use facts::{Facts, look};
pub use work::KeyError;

use crate::AppState;
use crate::config::Config;
use crate::release::{ReleaseError, Repository};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How long before its end the root metadata warns, in milliseconds: half a year, for somebody must
/// fetch the medium.
pub const ROOT_WARNING_MS: u64 = 180 * DAY_MS;

/// How long before its end the CA warns, beside the life of a device's certificate, in milliseconds.
/// Certificates that it signs end after it otherwise.
pub const CA_WARNING_MS: u64 = 180 * DAY_MS;

/// How long before its end a receipt or assignment key warns, in milliseconds. The hub extends it
/// long before.
pub const HUB_KEY_WARNING_MS: u64 = 180 * DAY_MS;

/// How long before their end the hub's own certificates warn, in milliseconds. A start issues them.
pub const SERVER_WARNING_MS: u64 = 180 * DAY_MS;

/// Every key, read from the disk and judged now.
///
/// # Errors
/// As [`look`].
pub async fn read(state: &AppState) -> Result<Vec<KeyState>, KeyError> {
    let (config, pki) = (Arc::clone(&state.config), Arc::clone(&state.pki));
    let facts = tokio::task::spawn_blocking(move || look(&config, &pki));
    let facts = facts.await.map_err(|_| ReleaseError::Panicked)??;
    let now = state.clock.now();
    let listed = list(&facts, now);
    state.vitals.clock.send_replace(clock::doubt(facts.signed_at, now));
    state.vitals.keys.send_replace(listed.clone());
    Ok(listed)
}

/// The hub's clock is wrong.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot go on: the clock says {} UTC, but {doubt}; set the clock, or, when it is right and what was \
     signed was wrong, add --clock-is-right",
    crate::cli::human::time(now.0)
)]
pub struct WrongClock {
    now: UnixMillis,
    doubt: clock::Doubt,
}

/// Refuses to serve with a clock that is certainly wrong, and logs one that may be.
///
/// # Errors
/// [`WrongClock`].
pub fn check_clock(config: &Config, now: UnixMillis) -> Result<(), WrongClock> {
    // What cannot be opened is named by the start that follows.
    let signed_at = Repository::open(&config.paths.tuf()).map_or(UnixMillis(0), |r| r.signed_at());
    match clock::doubt(signed_at, now) {
        None => Ok(()),
        Some(doubt @ clock::Doubt::Ahead { .. }) => {
            if signed_at.0 > 0 {
                tracing::warn!(%doubt, "the clock may be wrong");
            }
            Ok(())
        }
        Some(doubt) => Err(WrongClock { now, doubt }),
    }
}

/// Every key in the order of [`KeyName::ALL`], judged at `now`.
pub fn list(facts: &Facts, now: UnixMillis) -> Vec<KeyState> {
    facts.ends.iter().map(|end| state(*end, facts, now)).collect()
}

/// What ends: a key, the version of what it signed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The key.
    pub key: KeyName,
    /// The version of its metadata.
    pub version: Option<u64>,
    /// When it ends.
    pub at: UnixMillis,
}

fn state(end: End, facts: &Facts, now: UnixMillis) -> KeyState {
    let End { key, version, at } = end;
    let (signs, kept) = words(key);
    let left_ms = at.0.saturating_sub(now.0);
    let ends_soon = left_ms < warning_ms(key, facts);
    let restart = facts.restart.contains(&key);
    let rotating = facts.ends.iter().any(|end| end.key == KeyName::NextCa);
    let next = match key {
        _ if restart => "restart the hub, so that it takes effect".to_owned(),
        KeyName::Root => "before it ends: fleet-hub key renew root --offline-keys PATH".to_owned(),
        KeyName::Targets | KeyName::Snapshot | KeyName::Timestamp if ends_soon => {
            "the hub could not sign it anew; see its log".to_owned()
        }
        KeyName::Targets | KeyName::Snapshot | KeyName::Timestamp => {
            "nothing: the hub signs anew by itself".to_owned()
        }
        KeyName::Receipt | KeyName::Assignment if ends_soon => {
            format!("fleet-hub key renew {key}")
        }
        KeyName::Receipt | KeyName::Assignment => {
            "nothing: the hub extends it by itself".to_owned()
        }
        KeyName::Ca if rotating => {
            "once all devices know the next one: fleet-hub key retire ca".to_owned()
        }
        KeyName::Ca => "before it ends: fleet-hub key rotate ca".to_owned(),
        KeyName::NextCa => "takes the CA's place with: fleet-hub key retire ca".to_owned(),
        KeyName::Server if ends_soon => "restart the hub: every start issues them".to_owned(),
        KeyName::Server => "nothing: every start of the hub issues them".to_owned(),
    };
    let warns = ends_soon || restart;
    KeyState { key, signs: signs.into(), kept: kept.into(), version, ends_ms: at.0, warns, next }
}

const fn words(key: KeyName) -> (&'static str, &'static str) {
    match key {
        KeyName::Root => ("which keys sign releases", "the offline medium"),
        KeyName::Targets => ("what is released", "tuf/keys/dev-targets.pk8"),
        KeyName::Snapshot => ("which targets are the newest", "tuf/keys/dev-snapshot.pk8"),
        KeyName::Timestamp => ("which snapshot is the newest", "tuf/keys/dev-timestamp.pk8"),
        KeyName::Receipt => ("receipts and refusals", "pki/receipt.pk8"),
        KeyName::Assignment => ("orders to devices", "pki/assignment.pk8"),
        KeyName::Ca => ("certificates of hub and devices", "pki/ca.key"),
        KeyName::NextCa => ("renewed certificates of devices", "pki/ca-next.key"),
        KeyName::Server => ("the hub's connections", "pki/server.pem, pki/hub-client.pem"),
    }
}

/// How long before its end a key warns, in milliseconds.
fn warning_ms(key: KeyName, facts: &Facts) -> u64 {
    match key {
        KeyName::Root => ROOT_WARNING_MS,
        // The hub signs these anew at a third of their life.
        KeyName::Targets => 15 * DAY_MS,
        KeyName::Snapshot => DAY_MS,
        KeyName::Timestamp => DAY_MS / 6,
        KeyName::Receipt | KeyName::Assignment => HUB_KEY_WARNING_MS,
        KeyName::Ca | KeyName::NextCa => {
            CA_WARNING_MS + u64::from(facts.device_certificate_days) * DAY_MS
        }
        KeyName::Server => SERVER_WARNING_MS,
    }
}

/// The sentence that status, page and log show for a key that warns.
pub fn warning(state: &KeyState, now: UnixMillis) -> String {
    let KeyState { key, next, .. } = state;
    match state.ends_ms.checked_sub(now.0) {
        None => format!("key {key} has ended; {next}"),
        Some(left_ms) => format!("key {key} ends in {} days; {next}", left_ms / DAY_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn facts(key: KeyName, left_days: u64) -> Facts {
        let at = UnixMillis(NOW.0 + left_days * DAY_MS);
        let ends = vec![End { key, version: Some(3), at }];
        Facts { ends, restart: Vec::new(), device_certificate_days: 365, signed_at: NOW }
    }

    #[test]
    fn what_somebody_must_renew_warns_months_before_its_end() {
        for (key, quiet, loud) in
            [(KeyName::Root, 181, 179), (KeyName::Ca, 546, 544), (KeyName::Receipt, 181, 179)]
        {
            assert!(!list(&facts(key, quiet), NOW)[0].warns, "{key}");
            let warns = &list(&facts(key, loud), NOW)[0];
            assert!(warns.warns && warns.next.contains("fleet-hub key "), "{warns:?}");
            assert!(warning(warns, NOW).contains(&format!("ends in {loud} days")));
        }
        let ended = &list(&facts(KeyName::Root, 0), NOW)[0];
        assert!(warning(ended, UnixMillis(NOW.0 + 1)).contains("has ended"));
    }

    #[test]
    fn a_change_that_waits_for_a_restart_warns_until_then() {
        let waits = Facts { restart: vec![KeyName::Receipt], ..facts(KeyName::Receipt, 3000) };
        let state = &list(&waits, NOW)[0];
        assert!(state.warns && state.next.contains("restart"), "{state:?}");
    }
}
