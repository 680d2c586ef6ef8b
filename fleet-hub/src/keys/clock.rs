//! Whether the clock can be right, by what was signed before.

use fleetloop_protocol::UnixMillis;

use crate::cli::human;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// No clock that is right shows less, in milliseconds since 1970: the first day of the year in which
/// this program was written. Moved on with each release.
pub const WRITTEN: UnixMillis = UnixMillis(1_767_225_600_000);

/// How far a clock may go back behind what it signed, in milliseconds: corrections of a good clock.
pub const BACK_MS: u64 = 5 * 60 * 1000;

/// After so long without signing, in milliseconds, somebody should look at the clock: a hub signs
/// its timestamp every day.
pub const AHEAD_MS: u64 = 60 * DAY_MS;

/// What is wrong with a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It shows a time before this program was written.
    BeforeProgram,
    /// It shows a time before the hub last signed something.
    Behind {
        /// When that was.
        signed_at: UnixMillis,
    },
    /// The hub signed nothing for long: it was off, or the clock is ahead.
    Ahead {
        /// When it last did.
        signed_at: UnixMillis,
    },
}

/// What is wrong with a clock that shows `now`, when the hub last signed at `signed_at`.
pub fn doubt(signed_at: UnixMillis, now: UnixMillis) -> Option<Doubt> {
    if now < WRITTEN {
        Some(Doubt::BeforeProgram)
    } else if now.0.saturating_add(BACK_MS) < signed_at.0 {
        Some(Doubt::Behind { signed_at })
    } else if now.0.saturating_sub(signed_at.0) > AHEAD_MS {
        Some(Doubt::Ahead { signed_at })
    } else {
        None
    }
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let date = |at: &UnixMillis| human::time(at.0);
        match self {
            Self::BeforeProgram => {
                write!(f, "it is before {} UTC, when this program was written", date(&WRITTEN))
            }
            Self::Behind { signed_at } => {
                write!(f, "the hub signed something at {} UTC, which is later", date(signed_at))
            }
            Self::Ahead { signed_at } => write!(
                f,
                "the hub signed nothing since {} UTC; if it was not off all that time, the clock is \
                 ahead",
                date(signed_at)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn a_clock_before_what_it_signed_or_before_the_program_is_wrong_and_a_long_pause_is_doubtful() {
        assert_eq!(doubt(NOW, NOW), None);
        assert_eq!(doubt(NOW, UnixMillis(NOW.0 - BACK_MS)), None);
        let behind = UnixMillis(NOW.0 - BACK_MS - 1);
        assert_eq!(doubt(NOW, behind), Some(Doubt::Behind { signed_at: NOW }));
        assert_eq!(doubt(NOW, UnixMillis(NOW.0 + AHEAD_MS)), None);
        let ahead = UnixMillis(NOW.0 + AHEAD_MS + 1);
        assert_eq!(doubt(NOW, ahead), Some(Doubt::Ahead { signed_at: NOW }));
        assert_eq!(doubt(UnixMillis(0), UnixMillis(0)), Some(Doubt::BeforeProgram));
    }
}
