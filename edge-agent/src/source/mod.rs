//! Where frames come from, and the clock that asks for them.
//!
//! The driver is open loop: frame `n` is due at `start + n / rate`, whatever the model, the disk or
//! the scheduler do, and its latency counts from that moment. Above 1,000 frames a second the driver
//! wakes once a millisecond for all that are due. A driver that wakes late delivers what is owed at
//! once and counts it late; one that stood still for longer than
//! [`STANDSTILL`] counts what it missed as arrived and dropped, and starts a new schedule.
//!
//! Source and rate may change while it runs ([`Schedule`]): what is due under the old rate is
//! delivered, the next frame comes one new period from now or earlier, and none is owed twice.
//!
//! Nothing is read before a model is ready to answer (see [`crate::frames`]).

mod idx;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fleetloop_models::idx::IdxError;
use fleetloop_models::picture::Frame;

use crate::clock::Clock;
use crate::config::SourceConfig;
use crate::frames::{Arrived, FrameQueue};
use crate::{priority, threads};

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

/// Another source, or none to go on with the one there is, and the frames a second from now on.
struct Order {
    source: Option<Box<dyn Source>>,
    rate_hz: f64,
}

/// Changes where frames come from while they come.
pub struct Schedule(SyncSender<Order>);

impl Schedule {
    /// Lets frames come from `source`, or from where they do, at `rate_hz` from now on. Blocks until
    /// the driver has taken the change before, at most a moment.
    pub fn change(&self, source: Option<Box<dyn Source>>, rate_hz: f64) {
        // The driver ends with the queue; there is nothing to change then.
        drop(self.0.send(Order { source, rate_hz }));
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
) -> std::io::Result<(Schedule, JoinHandle<()>)> {
    // The driver takes an order within a nap; a second one waits for that.
    let (orders, ordered) = sync_channel(1);
    let driver = Driver { source, rate_hz, ordered, queue, clock, counts, number: 0 };
    let thread = threads::spawn("source", || {
        priority::begin_at_once();
        driver.run();
    })?;
    Ok((Schedule(orders), thread))
}

struct Driver {
    source: Box<dyn Source>,
    rate_hz: f64,
    ordered: Receiver<Order>,
    queue: Arc<FrameQueue>,
    clock: Clock,
    counts: Arc<SourceCounts>,
    number: u64,
}

/// What a wait for a frame came to.
enum Waited {
    /// It is due.
    Due,
    /// Source or rate are others now.
    Changed,
    /// There is nobody to deliver to.
    Nobody,
}

impl Driver {
    fn run(mut self) {
        while !self.queue.is_closed() {
            self.follow();
            if self.queue.wait_accepting(NAP) {
                self.schedule();
            }
        }
    }

    /// One schedule: from the moment the queue opens until it shuts or the process stood still.
    fn schedule(&mut self) {
        let mut start = self.clock.monotonic();
        let mut n = 0u64;
        loop {
            let period = Duration::from_secs_f64(1.0 / self.rate_hz);
            // The n-th moment from the start, so that rounding does not add up.
            let due = start + Duration::from_secs_f64(n as f64 / self.rate_hz);
            match self.sleep_until(due, if period < TOGETHER { TOGETHER } else { Duration::ZERO }) {
                Waited::Due => {}
                Waited::Nobody => return,
                Waited::Changed => {
                    // What was due stays due; what was not comes in one new period at the latest.
                    let soon = Duration::from_secs_f64(1.0 / self.rate_hz);
                    (start, n) = (due.min(self.clock.monotonic() + soon), 0);
                    continue;
                }
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

    /// Takes over what was ordered; whether anything was.
    fn follow(&mut self) -> bool {
        let Ok(Order { source, rate_hz }) = self.ordered.try_recv() else { return false };
        self.rate_hz = rate_hz;
        if let Some(source) = source {
            self.source = source;
        }
        true
    }

    /// Waits for `due`, `shortest` at least if at all.
    fn sleep_until(&mut self, due: Duration, shortest: Duration) -> Waited {
        loop {
            if !self.queue.wait_accepting(Duration::ZERO) {
                return Waited::Nobody;
            }
            if self.follow() {
                return Waited::Changed;
            }
            let left = due.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return Waited::Due;
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

    struct Grey(u8);

    impl Source for Grey {
        fn next_frame(&mut self) -> Result<Frame, SourceError> {
            Ok(Frame::new(1, 1, Channels::Grey, vec![self.0]).expect("one pixel"))
        }
        fn describe(&self) -> String {
            "grey".into()
        }
    }

    type Started = (Schedule, JoinHandle<()>, Arc<SourceCounts>);

    fn driver(queue: &Arc<FrameQueue>, rate_hz: f64) -> Started {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system(dir.path().join("clock.json")).unwrap();
        let counts = Arc::new(SourceCounts::default());
        let (schedule, thread) =
            spawn(Box::new(Grey(7)), rate_hz, queue.clone(), clock, counts.clone()).unwrap();
        (schedule, thread, counts)
    }

    fn frames_are_on_schedule(rate_hz: u32) {
        let queue = Arc::new(FrameQueue::new(1000));
        let (_schedule, thread, _) = driver(&queue, f64::from(rate_hz));
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

    fn next(queue: &FrameQueue) -> Box<Arrived> {
        match queue.pop(Duration::from_secs(30)) {
            Popped::Frame(arrived) => arrived,
            other => panic!("no frame: {other:?}"),
        }
    }

    #[test]
    fn another_source_at_another_rate_takes_over_between_two_frames() {
        let queue = Arc::new(FrameQueue::new(10_000));
        let (schedule, thread, _) = driver(&queue, 500.0);
        queue.set_accepting(true);
        let first = next(&queue);
        schedule.change(Some(Box::new(Grey(9))), 100.0);
        let mut frames = vec![first];
        while frames.iter().filter(|arrived| arrived.frame.pixels() == [9]).count() < 10 {
            frames.push(next(&queue));
        }
        queue.close();
        thread.join().unwrap();
        let new = frames.iter().position(|arrived| arrived.frame.pixels() == [9]).unwrap();
        assert!(new > 0 && frames[new..].iter().all(|arrived| arrived.frame.pixels() == [9]));
        for (i, pair) in frames.windows(2).enumerate() {
            assert_eq!(pair[1].number, pair[0].number + 1, "none is left out");
            let gap = pair[1].due - pair[0].due;
            let expected = Duration::from_millis(if i + 1 > new { 10 } else { 2 });
            // The first of the new source was due under the old rate.
            assert!(gap.abs_diff(expected) < Duration::from_micros(1), "{i}: {gap:?}");
        }
    }

    #[test]
    fn a_source_that_gave_a_frame_a_day_gives_the_next_one_at_its_new_rate() {
        let queue = Arc::new(FrameQueue::new(10));
        let (schedule, thread, _) = driver(&queue, 1.0 / 86_400.0);
        queue.set_accepting(true);
        assert_eq!(next(&queue).number, 0);
        schedule.change(None, 100.0);
        assert_eq!((next(&queue).number, next(&queue).number), (1, 2));
        queue.close();
        thread.join().unwrap();
    }

    #[test]
    fn nothing_is_read_before_a_model_is_ready() {
        let queue = Arc::new(FrameQueue::new(10));
        let (_schedule, thread, counts) = driver(&queue, 1000.0);
        assert!(matches!(queue.pop(Duration::from_millis(50)), Popped::Empty));
        assert_eq!((queue.counts().frames_in, counts.failed()), (0, 0));
        queue.close();
        thread.join().unwrap();
    }
}
