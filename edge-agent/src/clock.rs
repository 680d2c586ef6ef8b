//! The injected clock: the one place in this crate that asks the system for the time.
//!
//! Time on a device is a guess. Without a clock chip it starts in 1970, so the last time that was
//! known to be true is kept in a file as a floor, and [`Clock::now`] never goes below it. The hub
//! (its TLS certificate verified) says what time it is; from then on the time is that moment plus
//! the monotonic clock, so a step of the system's clock cannot move it. Budgets and timeouts use
//! [`Clock::monotonic`] only.
//!
//! Three times, from the least certain: [`Clock::now`] is the best guess, for what is written on
//! samples (which say whether it was synced); [`Clock::past`] is certainly past: the synced time or,
//! without one, the floor, which moves on with the monotonic clock; the floor in the file is that of
//! some minutes ago. Whoever decides by the end of something (a certificate's life) takes `past`:
//! a battery that died on the way to 2099 expires nothing.
//!
//! A hub whose time lies far below the floor is not believed: it could otherwise bring back
//! metadata that has expired. The clock then stays unsynced, nothing is installed, inference goes
//! on, samples are sent.
//!
//! | the floor is | what follows |
//! |---|---|
//! | far behind (a device long without a hub, 1970) | the ends of lives are not noticed until the hub says the time, which needs no certificate of the device; an expired certificate of the hub would be accepted for that long |
//! | ahead (a hub was wrong) | the right hub's time is refused until it is later than the floor; the device's certificate may seem expired and is renewed, once an hour at most; a floor ahead of the end of the hub's own certificate (two years) cuts the device off until then, or until `clock.json` is deleted |

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fleetloop_protocol::{ClockState, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError};

/// How far a hub's time may lie below the floor: two hubs' clocks differ by less.
const FLOOR_TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// How much later the true time must be before the floor is written again: it spares the flash.
const FLOOR_STEP_MS: u64 = 10 * 60 * 1000;

/// The largest floor file that is read, in bytes.
const FLOOR_FILE_BYTES: u64 = 4096;

/// Why the clock could not be set or kept.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The floor file could not be read or written.
    #[error("cannot keep the clock's floor in {}; check the disk", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: DurableError,
    },
    /// The hub's time lies before a time already known to be past.
    #[error(
        "cannot take the hub's time {hub_ms}: it lies before {floor_ms}, which is past; \
         correct the hub's clock (or delete clock.json if this device was once wrong)"
    )]
    BelowFloor {
        /// What the hub said, in milliseconds since 1970.
        hub_ms: u64,
        /// The floor.
        floor_ms: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct FloorFile {
    floor_ms: u64,
}

enum Base {
    System { start: Instant },
    Manual { wall_ms: u64, elapsed: Duration },
}

struct State {
    base: Base,
    /// A time that was past at `floor_at`.
    floor_ms: u64,
    floor_at: Duration,
    /// The hub's time and the monotonic moment at which it said so.
    anchor: Option<(u64, Duration)>,
    written_ms: u64,
    file: Option<PathBuf>,
}

/// The clock. Cheap to clone; all clones are one clock.
#[derive(Clone)]
pub struct Clock(Arc<Mutex<State>>);

/// Moves a clock made by [`Clock::manual`].
#[derive(Debug, Clone)]
pub struct ManualTime(Clock);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({:?}, {:?})", self.now(), self.state())
    }
}

impl Clock {
    /// The system's clock, with the floor in `floor_file` (made on the first sync).
    ///
    /// An unreadable floor is logged and counts as none: inference must not wait for it.
    ///
    /// # Errors
    /// [`ClockError::File`] when the file exists and the disk does not give it.
    pub fn system(floor_file: PathBuf) -> Result<Self, ClockError> {
        let floor_ms = read_floor(&floor_file)?;
        Ok(Self::new(Base::System { start: Instant::now() }, floor_ms, Some(floor_file)))
    }

    /// A clock that stands still until it is moved.
    pub fn manual(start: UnixMillis) -> (Self, ManualTime) {
        let base = Base::Manual { wall_ms: start.0, elapsed: Duration::ZERO };
        let clock = Self::new(base, 0, None);
        (clock.clone(), ManualTime(clock))
    }

    /// The same with its floor in `floor_file`, as [`Clock::system`] has it.
    ///
    /// # Errors
    /// [`ClockError::File`].
    pub fn manual_over(
        start: UnixMillis,
        floor_file: PathBuf,
    ) -> Result<(Self, ManualTime), ClockError> {
        let base = Base::Manual { wall_ms: start.0, elapsed: Duration::ZERO };
        let floor_ms = read_floor(&floor_file)?;
        let clock = Self::new(base, floor_ms, Some(floor_file));
        Ok((clock.clone(), ManualTime(clock)))
    }

    fn new(base: Base, floor_ms: u64, file: Option<PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(State {
            base,
            floor_ms,
            floor_at: Duration::ZERO,
            anchor: None,
            written_ms: floor_ms,
            file,
        })))
    }

    fn state_now(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves plain numbers behind, which are still right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time, never below the floor.
    pub fn now(&self) -> UnixMillis {
        self.state_now().now()
    }

    /// A time that is certainly past: the synced time, else the floor and how long it stood.
    pub fn past(&self) -> UnixMillis {
        UnixMillis(self.state_now().past_ms())
    }

    /// `at` is known to be past, for instance because the hub issued something then.
    pub fn is_past(&self, at: UnixMillis) {
        let mut state = self.state_now();
        if at.0 > state.past_ms() {
            state.set_floor(at.0);
        }
    }

    /// Whether the time can be relied on.
    pub fn state(&self) -> ClockState {
        if self.state_now().anchor.is_some() { ClockState::Synced } else { ClockState::Unsynced }
    }

    /// Time since the clock was made; never steps.
    pub fn monotonic(&self) -> Duration {
        self.state_now().elapsed()
    }

    /// The hub says, over its authenticated connection, that it is `hub_now`.
    ///
    /// # Errors
    /// [`ClockError::BelowFloor`] leaves the clock as it was.
    pub fn synced(&self, hub_now: UnixMillis) -> Result<(), ClockError> {
        let mut state = self.state_now();
        // While synced the floor stands, so that a hub a little behind is caught up with.
        let floor_ms = if state.anchor.is_some() { state.floor_ms } else { state.past_ms() };
        if hub_now.0.saturating_add(FLOOR_TOLERANCE_MS) < floor_ms {
            return Err(ClockError::BelowFloor { hub_ms: hub_now.0, floor_ms });
        }
        state.anchor = Some((hub_now.0, state.elapsed()));
        state.set_floor(floor_ms.max(hub_now.0));
        Ok(())
    }

    /// The time can no longer be relied on; it goes on from where it is.
    pub fn unsynced(&self) {
        let mut state = self.state_now();
        let past_ms = state.past_ms();
        state.set_floor(past_ms);
        state.anchor = None;
    }

    /// Writes the floor if the true time has moved far enough since it was last written. Blocks on
    /// the disk; one caller only.
    ///
    /// # Errors
    /// [`ClockError::File`]; the next call tries again.
    pub fn persist(&self) -> Result<(), ClockError> {
        let (path, floor_ms) = {
            let mut state = self.state_now();
            let past_ms = state.past_ms();
            state.set_floor(past_ms);
            let due = past_ms >= state.written_ms.saturating_add(FLOOR_STEP_MS);
            match &state.file {
                Some(path) if due => (path.clone(), past_ms),
                _ => return Ok(()),
            }
        };
        let text = format!("{{\"floor_ms\":{floor_ms}}}\n");
        durable::write(&path, text.as_bytes())
            .map_err(|source| ClockError::File { path, source })?;
        self.state_now().written_ms = floor_ms;
        Ok(())
    }
}

impl State {
    fn elapsed(&self) -> Duration {
        match self.base {
            Base::System { start } => start.elapsed(),
            Base::Manual { elapsed, .. } => elapsed,
        }
    }

    fn now(&self) -> UnixMillis {
        let wall_ms = match (self.anchor, &self.base) {
            (Some(_), _) => 0,
            (None, Base::System { .. }) => system_ms(),
            (None, Base::Manual { wall_ms, .. }) => *wall_ms,
        };
        UnixMillis(wall_ms.max(self.past_ms()))
    }

    fn past_ms(&self) -> u64 {
        match self.anchor {
            Some((hub_ms, at)) => {
                hub_ms.saturating_add(millis(self.elapsed() - at)).max(self.floor_ms)
            }
            None => self.floor_ms.saturating_add(millis(self.elapsed() - self.floor_at)),
        }
    }

    fn set_floor(&mut self, ms: u64) {
        (self.floor_ms, self.floor_at) = (ms, self.elapsed());
    }
}

fn read_floor(file: &Path) -> Result<u64, ClockError> {
    let error = |source| ClockError::File { path: file.to_owned(), source };
    let Some(bytes) = durable::read(file, FLOOR_FILE_BYTES).map_err(error)? else { return Ok(0) };
    Ok(serde_json::from_slice(&bytes).map_or_else(
        |error| {
            let file = file.display();
            tracing::error!(%file, %error, "the clock's floor is unreadable; going on without");
            0
        },
        |file: FloorFile| file.floor_ms,
    ))
}

impl ManualTime {
    /// Moves wall and monotonic time forward together.
    pub fn advance(&self, by: Duration) {
        let mut state = self.0.state_now();
        if let Base::Manual { wall_ms, elapsed } = &mut state.base {
            *wall_ms += millis(by);
            *elapsed += by;
        }
    }

    /// Steps the wall clock alone, forward or back, as NTP or a flat battery does.
    pub fn step_wall(&self, to: UnixMillis) {
        if let Base::Manual { wall_ms, .. } = &mut self.0.state_now().base {
            *wall_ms = to.0;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
fn system_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_790_000_000_000;

    #[test]
    fn a_synced_clock_follows_the_hub_and_no_step_of_the_system() {
        let (clock, time) = Clock::manual(UnixMillis(0));
        assert_eq!(clock.state(), ClockState::Unsynced);
        clock.synced(UnixMillis(NOON)).unwrap();
        time.step_wall(UnixMillis(1));
        time.advance(Duration::from_secs(2));
        assert_eq!((clock.now(), clock.state()), (UnixMillis(NOON + 2000), ClockState::Synced));
    }

    #[test]
    fn time_never_goes_below_the_floor_and_a_hub_far_below_it_is_refused() {
        let (clock, time) = Clock::manual(UnixMillis(NOON));
        clock.synced(UnixMillis(NOON)).unwrap();
        clock.unsynced();
        time.step_wall(UnixMillis(5));
        assert_eq!(clock.now(), UnixMillis(NOON));
        assert!(matches!(
            clock.synced(UnixMillis(NOON - FLOOR_TOLERANCE_MS - 1)),
            Err(ClockError::BelowFloor { .. })
        ));
        assert_eq!(clock.state(), ClockState::Unsynced);
        clock.synced(UnixMillis(NOON - 1000)).unwrap();
        assert_eq!(clock.state(), ClockState::Synced);
    }

    #[test]
    fn without_a_hub_the_floor_moves_on_and_a_wall_clock_ahead_makes_nothing_certain() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock.json");
        let hour = Duration::from_secs(3600);
        let (clock, time) = Clock::manual_over(UnixMillis(0), file.clone()).unwrap();
        clock.is_past(UnixMillis(NOON));
        time.advance(hour);
        assert_eq!((clock.past(), clock.now()), (UnixMillis(NOON + 3_600_000), clock.past()));
        time.step_wall(UnixMillis(NOON * 2));
        assert_eq!(clock.now(), UnixMillis(NOON * 2));
        assert_eq!(clock.past(), UnixMillis(NOON + 3_600_000));
        clock.is_past(UnixMillis(5));
        assert_eq!(clock.past(), UnixMillis(NOON + 3_600_000), "a floor never falls");
        clock.persist().unwrap();
        let (again, _) = Clock::manual_over(UnixMillis(0), file).unwrap();
        assert_eq!(again.now(), UnixMillis(NOON + 3_600_000));
    }

    #[test]
    fn a_hub_a_little_behind_the_floor_is_caught_up_with() {
        let (clock, time) = Clock::manual(UnixMillis(0));
        clock.is_past(UnixMillis(NOON));
        clock.synced(UnixMillis(NOON - 60_000)).unwrap();
        time.advance(Duration::from_secs(30));
        assert_eq!(clock.now(), UnixMillis(NOON), "it stands until the hub's time is there");
        time.advance(Duration::from_secs(90));
        assert_eq!(clock.now(), UnixMillis(NOON + 60_000));
    }

    #[test]
    fn a_restart_in_1970_starts_at_the_floor() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock.json");
        let far = system_ms() + 1_000_000_000;
        let clock = Clock::system(file.clone()).unwrap();
        clock.synced(UnixMillis(far)).unwrap();
        clock.persist().unwrap();
        drop(clock);
        let again = Clock::system(file.clone()).unwrap();
        assert!(again.now() >= UnixMillis(far));
        assert_eq!(again.state(), ClockState::Unsynced);
        durable::write(&file, b"not json").unwrap();
        assert!(Clock::system(file).unwrap().now() < UnixMillis(far));
    }
}
