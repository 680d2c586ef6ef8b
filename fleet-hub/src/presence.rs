//! Whether a device is there. Pure.
//!
//! An agent reports when it connects, at every change and every minute, and once more when it is told to
//! end. A power cut says nothing: then its silence does.

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::devices::Presence;

/// Milliseconds without a word after which a device counts as away: two of its reports, and some time for
/// the way.
pub const SILENT_AFTER_MS: u64 = 150_000;

/// What is known of a device that was heard of at `last_seen`, and whose last report said that it stops or
/// not.
pub fn presence(last_seen: Option<UnixMillis>, is_stopping: bool, now: UnixMillis) -> Presence {
    match last_seen {
        None => Presence::Never,
        Some(_) if is_stopping => Presence::Stopped,
        Some(at) if now.0.saturating_sub(at.0) > SILENT_AFTER_MS => Presence::Silent,
        Some(_) => Presence::Online,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_away_when_it_says_so_or_says_nothing() {
        let (at, s) = (UnixMillis(1_000_000), 1000);
        let seen = |since, stopping| presence(Some(at), stopping, UnixMillis(at.0 + since));
        assert_eq!(presence(None, false, at), Presence::Never);
        assert_eq!(seen(60 * s, false), Presence::Online);
        assert_eq!(seen(0, true), Presence::Stopped);
        assert_eq!(seen(SILENT_AFTER_MS, false), Presence::Online);
        assert_eq!(seen(SILENT_AFTER_MS + 1, false), Presence::Silent);
        assert_eq!(presence(Some(at), false, UnixMillis(0)), Presence::Online, "a clock set back");
    }
}
