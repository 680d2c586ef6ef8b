//! Where frames come from, and the clock that asks for them.
//!
//! The driver is open loop: frame `n` is due at `start + n / rate`, whatever the model, the disk or
//! the scheduler do, and its latency counts from that moment. Above 1,000 frames a second the driver
//! wakes once a millisecond for all that are due. A driver that wakes late delivers what is owed at
//! once and counts it late; one that stood still for longer than
//! [`STANDSTILL`] counts what it missed as arrived and dropped, and starts a new schedule.
//!
//! Nothing is read before a model is ready to answer (see [`crate::frames`]).

mod idx;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fleetloop_models::idx::IdxError;
use fleetloop_models::picture::Frame;

use crate::clock::Clock;
use crate::config::SourceConfig;
use crate::frames::{Arrived, FrameQueue};

pub use idx::IdxReplay;

/// A driver this far behind stood still; it does not catch up.
pub const STANDSTILL: Duration = Duration::from_secs(10);

/// How long the driver sleeps at most, so that it sees a closed queue.
const NAP: Duration = Duration::from_millis(100);

/// Frames that are due within this much of each other are delivered together: waking twice for
/// every frame costs more than the frame above a thousand of them a second.
const TOGETHER: Duration = Duration::from_millis(1);

/// Something that gives frames, one for each call, without end.
pub trait Source: Send {
    /// The next frame. Blocks only as long as reading one takes.
    ///
    /// # Errors
    /// [`SourceError`]; the next call tries again.
    fn next_frame(&mut self) -> Result<Frame, SourceError>;

    /// What it reads, for people.
    fn describe(&self) -> String;
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("cannot read the next frame; check [source] in the configuration")]
    Idx(#[from] IdxError),
    /// The file holds fewer pictures than the configuration names.
    #[error("cannot replay {path} from picture {start}: it holds {len}; lower source.start")]
    Range {
        /// The file.
        path: String,
        /// The first picture wanted.
        start: usize,
        /// How many there are.
        len: usize,
    },
}

/// Opens the source that the configuration names.
///
/// # Errors
/// [`SourceError`] when it cannot give frames now.
pub fn open(config: &SourceConfig) -> Result<Box<dyn Source>, SourceError> {
    match config {
        SourceConfig::Idx(idx) => Ok(Box::new(IdxReplay::open(idx)?)),
    }
}

/// What the driver counts.
#[derive(Debug, Default)]
pub struct SourceCounts {
    late: AtomicU64,
    failed: AtomicU64,
}

impl SourceCounts {
    /// Frames delivered more than one period, and more than 2 ms, after they were due.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Frames that could not be read; they count as arrived and dropped.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Starts the driver's thread. It ends when the queue is closed.
///
/// # Errors
/// The system's, when it has no thread to give.
pub fn spawn(
    source: Box<dyn Source>,
    rate_hz: f64,
    queue: Arc<FrameQueue>,
    clock: Clock,
    counts: Arc<SourceCounts>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("source".into())
        .spawn(move || Driver { source, rate_hz, queue, clock, counts, number: 0 }.run())
}

struct Driver {
    source: Box<dyn Source>,
    rate_hz: f64,
    queue: Arc<FrameQueue>,
    clock: Clock,
    counts: Arc<SourceCounts>,
    number: u64,
}

impl Driver {
    fn run(mut self) {
        while !self.queue.is_closed() {
            if self.queue.wait_accepting(NAP) {
                self.schedule();
            }
        }
    }

    /// One schedule: from the moment the queue opens until it shuts or the process stood still.
    fn schedule(&mut self) {
        let start = self.clock.monotonic();
        let period = Duration::from_secs_f64(1.0 / self.rate_hz);
        let shortest = if period < TOGETHER { TOGETHER } else { Duration::ZERO };
        let mut n = 0u64;
        loop {
            // The n-th moment from the start, so that rounding does not add up.
            let due = start + Duration::from_secs_f64(n as f64 / self.rate_hz);
            if !self.sleep_until(due, shortest) {
                return;
            }
            let behind = self.clock.monotonic().saturating_sub(due);
            if behind > STANDSTILL {
                let missed = (behind.as_secs_f64() * self.rate_hz) as u64;
                tracing::warn!(missed, behind_s = behind.as_secs(), "the process stood still");
                self.queue.missed(missed);
                return;
            }
            if behind > period.max(2 * TOGETHER) {
                self.counts.late.fetch_add(1, Ordering::Relaxed);
            }
            self.deliver(due);
            n += 1;
        }
    }

    /// Waits for `due`, `shortest` at least if at all; false when there is nobody to deliver to.
    fn sleep_until(&self, due: Duration, shortest: Duration) -> bool {
        loop {
            if !self.queue.wait_accepting(Duration::ZERO) {
                return false;
            }
            let left = due.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.clamp(shortest, NAP));
        }
    }

    fn deliver(&mut self, due: Duration) {
        match self.source.next_frame() {
            Ok(frame) => {
                self.queue.push(Box::new(Arrived {
                    frame,
                    number: self.number,
                    due,
                    captured_at: self.clock.now(),
                    clock: self.clock.state(),
                }));
            }
            Err(error) => {
                // The first and then every thousandth, or a broken file fills the log.
                if self.counts.failed.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "no frame");
                }
                self.queue.missed(1);
            }
        }
        self.number += 1;
    }
}

#[cfg(test)]
mod tests {
    use fleetloop_models::picture::Channels;

    use super::*;
    use crate::frames::Popped;

    struct Grey;

    impl Source for Grey {
        fn next_frame(&mut self) -> Result<Frame, SourceError> {
            Ok(Frame::new(1, 1, Channels::Grey, vec![7]).expect("one pixel"))
        }
        fn describe(&self) -> String {
            "grey".into()
        }
    }

    fn driver(queue: &Arc<FrameQueue>, rate_hz: f64) -> (JoinHandle<()>, Arc<SourceCounts>) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system(dir.path().join("clock.json")).unwrap();
        let counts = Arc::new(SourceCounts::default());
        let thread = spawn(Box::new(Grey), rate_hz, queue.clone(), clock, counts.clone()).unwrap();
        (thread, counts)
    }

    fn frames_are_on_schedule(rate_hz: u32) {
        let queue = Arc::new(FrameQueue::new(1000));
        let (thread, _) = driver(&queue, f64::from(rate_hz));
        queue.set_accepting(true);
        let mut due = Vec::new();
        while due.len() < 50 {
            match queue.pop(Duration::from_secs(10)) {
                Popped::Frame(arrived) => due.push((arrived.number, arrived.due)),
                other => panic!("no frame: {other:?}"),
            }
        }
        queue.close();
        thread.join().unwrap();
        for (i, (number, at)) in due.iter().enumerate() {
            assert_eq!(*number, i as u64);
            let expected = due[0].1 + Duration::from_secs(i as u64) / rate_hz;
            assert!(at.abs_diff(expected) < Duration::from_micros(1), "{number} at {at:?}");
        }
    }

    #[test]
    fn frames_are_due_on_the_schedule_however_late_they_are_taken() {
        frames_are_on_schedule(1000);
    }

    #[test]
    fn frames_that_are_delivered_together_keep_their_own_times() {
        frames_are_on_schedule(8000);
    }

    #[test]
    fn nothing_is_read_before_a_model_is_ready() {
        let queue = Arc::new(FrameQueue::new(10));
        let (thread, counts) = driver(&queue, 1000.0);
        assert!(matches!(queue.pop(Duration::from_millis(50)), Popped::Empty));
        assert_eq!((queue.counts().frames_in, counts.failed()), (0, 0));
        queue.close();
        thread.join().unwrap();
    }
}
