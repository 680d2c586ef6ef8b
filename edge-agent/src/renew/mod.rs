//! The device's certificate, renewed before it ends and after.
//!
//! ```text
//!  Identity ── dates ──► decide (pure) ── now ──► new key ─► POST /renew ─► check ─► keep ─► shown
//!                          ▲                       signed by the enrolled key
//!                     Clock::past
//! ```
//!
//! A certificate is renewed when the hub has a newer CA than the one that signed it, and at two thirds
//! of its life, later by a share of [`SPREAD`] that is each
//! device's own, so that devices that enrolled in one minute do not renew in one. There is one road
//! for a certificate that is still good and for one that has expired: the request rests on the
//! enrolled key alone and shows no certificate ([`fleetloop_protocol::renew`]). What decides is a
//! time that is certainly past. A device that woke without a clock therefore does not know that its
//! certificate has expired; the updater asks the hub's time, which needs no certificate either, and
//! the next look renews.
//!
//! What a power cut leaves: before the answer, the pair before (the new key was in memory only; the
//! next attempt draws another); until the new pair is renamed into place, the pair before; then the
//! new one. The pair before is good until its own end throughout. On a disk that refuses, the new
//! pair is shown until the process ends. Inference knows nothing of any of this.
//!
//! Limits: looked at every [`LOOK_EVERY`]; after a failure [`fleetloop_protocol::backoff`] waits, after a
//! refusal of the hub and after a success at least [`AGAIN_AFTER`] passes, whatever a clock says.

mod ask;
mod task;

use fleetloop_protocol::{DeviceId, Digest, UnixMillis};

use crate::identity::Life;

pub use ask::{RenewError, renew};
pub(crate) use task::Renewer;
pub use task::{AGAIN_AFTER, LOOK_EVERY};

/// The share of a certificate's life, after its two thirds, over which devices spread.
pub const SPREAD: f64 = 1.0 / 12.0;

/// Why a certificate is renewed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Two thirds of its life are over.
    Soon,
    /// It has ended.
    Expired,
    /// The hub has a newer CA, which did not sign it: soon the one that did is not accepted.
    OtherAuthority,
}

/// Whether to renew a certificate of that life when `past` is certainly past; `share`, from 0 to 1,
/// is the device's place in the spread.
pub fn decide(life: Life, share: f64, past: UnixMillis) -> Option<Due> {
    if past >= life.not_after {
        Some(Due::Expired)
    } else if past >= due_at(life, share) {
        Some(Due::Soon)
    } else {
        None
    }
}

/// When a certificate of that life is to be renewed by the device of that place in the spread.
pub fn due_at(life: Life, share: f64) -> UnixMillis {
    let length_ms = life.not_after.0.saturating_sub(life.not_before.0);
    let part = 2.0 / 3.0 + SPREAD * share.clamp(0.0, 1.0);
    UnixMillis(life.not_before.0.saturating_add((length_ms as f64 * part) as u64))
}

/// A device's place in the spread for one certificate: the same at every start.
pub fn share(device: &DeviceId, life: Life) -> f64 {
    let start = life.not_before.0.to_le_bytes();
    let digest = Digest::of_parts(&[device.as_str().as_bytes(), &start]);
    let [a, b, ..] = *digest.as_bytes();
    f64::from(u16::from_le_bytes([a, b])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;
    const LIFE: Life =
        Life { not_before: UnixMillis(1000 * DAY), not_after: UnixMillis(1360 * DAY) };

    fn at(day: u64) -> UnixMillis {
        UnixMillis(day * DAY)
    }

    #[test]
    fn a_certificate_is_renewed_from_two_thirds_of_its_life_on_and_expires_at_its_end() {
        assert_eq!(decide(LIFE, 0.0, UnixMillis(1240 * DAY - 1000)), None);
        assert_eq!(decide(LIFE, 0.0, at(1240)), Some(Due::Soon));
        assert_eq!(decide(LIFE, 1.0, at(1269)), None);
        assert_eq!(decide(LIFE, 1.0, at(1271)), Some(Due::Soon));
        assert_eq!(decide(LIFE, 1.0, UnixMillis(1360 * DAY - 1)), Some(Due::Soon));
        assert_eq!(decide(LIFE, 1.0, at(1360)), Some(Due::Expired));
        assert_eq!(decide(LIFE, 0.0, UnixMillis(u64::MAX)), Some(Due::Expired));
    }

    #[test]
    fn a_device_in_1970_or_with_a_floor_before_the_certificate_renews_nothing() {
        for past in [UnixMillis(0), at(999), at(1000)] {
            assert_eq!(decide(LIFE, 0.0, past), None);
        }
        // Dates that make no sense end, and are renewed, rather than overflow.
        let upside_down = Life { not_before: LIFE.not_after, not_after: LIFE.not_before };
        assert_eq!(decide(upside_down, 0.5, at(1000)), Some(Due::Expired));
    }

    #[test]
    fn ten_thousand_devices_of_one_minute_do_not_renew_in_one() {
        let mut minutes: Vec<u64> = (0..10_000)
            .map(|i| {
                let device: DeviceId = format!("dev-{i}").parse().unwrap();
                due_at(LIFE, share(&device, LIFE)).0 / 60_000
            })
            .collect();
        minutes.sort_unstable();
        let most = minutes.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap();
        assert!(most <= 12, "{most} in one minute of {} days", 30);
        assert!(minutes[9999] - minutes[0] > 28 * 24 * 60);
    }
}
