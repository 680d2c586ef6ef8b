//! The frame queue between a source and the model: bounded, and when it is full the oldest frame
//! goes, for the newest says more of the present. Every frame is counted when it arrives and when
//! it is dropped.
//!
//! The queue is closed to frames until a model is ready to answer ([`FrameQueue::set_accepting`]):
//! a frame that nobody could answer is never taken in, and so is not counted.
//!
//! Invariant: frames in = frames taken by the model + frames dropped + frames waiting.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetloop_models::picture::Frame;
use fleetloop_protocol::{ClockState, UnixMillis};

/// A frame on its way to the model.
#[derive(Debug)]
pub struct Arrived {
    /// The picture, after masks and before preprocessing.
    pub frame: Frame,
    /// Its number since the agent started, from 0.
    pub number: u64,
    /// When it was due, by the monotonic clock: latency counts from here.
    pub due: Duration,
    /// When it was taken.
    pub captured_at: UnixMillis,
    /// Whether that time can be relied on.
    pub clock: ClockState,
}

/// What went through the queue since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Frames that arrived.
    pub frames_in: u64,
    /// Frames dropped, the oldest first, because the queue was full.
    pub frames_dropped: u64,
    /// Frames waiting now.
    pub waiting: usize,
}

/// What [`FrameQueue::pop`] found.
#[derive(Debug)]
pub enum Popped {
    /// The oldest frame.
    Frame(Box<Arrived>),
    /// Nothing within the time.
    Empty,
    /// Nothing, and nothing will come.
    Closed,
}

#[derive(Default)]
struct Inner {
    frames: VecDeque<Box<Arrived>>,
    counts: FrameCounts,
    capacity: usize,
    accepting: bool,
    closed: bool,
}

/// The queue. One source pushes, one worker pops; they share it by `Arc`.
pub struct FrameQueue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl FrameQueue {
    /// A queue for `capacity` frames, at least one, not yet accepting.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner { capacity: capacity.max(1), ..Inner::default() };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock; were it to, the queue would still be whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame in, dropping the oldest when full. A queue that is closed or not accepting
    /// takes nothing and counts nothing.
    pub fn push(&self, arrived: Box<Arrived>) {
        let mut inner = self.lock();
        if inner.closed || !inner.accepting {
            return;
        }
        inner.counts.frames_in += 1;
        while inner.frames.len() >= inner.capacity {
            inner.frames.pop_front();
            inner.counts.frames_dropped += 1;
        }
        let was_empty = inner.frames.is_empty();
        inner.frames.push_back(arrived);
        drop(inner);
        // The worker waits only for an empty queue to fill; waking costs a system call.
        if was_empty {
            self.changed.notify_all();
        }
    }

    /// Counts frames that came while the process was not running (stopped, suspended) or that the
    /// source could not read: they arrived and nobody answers them.
    pub fn missed(&self, frames: u64) {
        let mut inner = self.lock();
        if inner.accepting && !inner.closed {
            inner.counts.frames_in += frames;
            inner.counts.frames_dropped += frames;
        }
    }

    /// The oldest frame, waiting at most `wait` for one. After [`FrameQueue::close`] what is still
    /// there comes out first.
    pub fn pop(&self, wait: Duration) -> Popped {
        let inner = self.lock();
        let idle = |inner: &mut Inner| inner.frames.is_empty() && !inner.closed;
        let (mut inner, _) = self
            .changed
            .wait_timeout_while(inner, wait, idle)
            .unwrap_or_else(PoisonError::into_inner);
        match inner.frames.pop_front() {
            Some(frame) => Popped::Frame(frame),
            None if inner.closed => Popped::Closed,
            None => Popped::Empty,
        }
    }

    /// Makes the queue longer or shorter. Nothing is dropped by it: what waits may still be
    /// answered, and the next frame that finds more waiting than may drops the oldest.
    pub fn set_capacity(&self, capacity: usize) {
        self.lock().capacity = capacity.max(1);
    }

    /// Opens or shuts the queue for new frames.
    pub fn set_accepting(&self, accepting: bool) {
        self.lock().accepting = accepting;
        self.changed.notify_all();
    }

    /// Waits at most `wait` until the queue accepts frames; whether it does.
    pub fn wait_accepting(&self, wait: Duration) -> bool {
        let shut = |inner: &mut Inner| !inner.accepting && !inner.closed;
        let (inner, _) = self
            .changed
            .wait_timeout_while(self.lock(), wait, shut)
            .unwrap_or_else(PoisonError::into_inner);
        inner.accepting && !inner.closed
    }

    /// Ends the queue: nothing is taken in any more, what is there can still be taken out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether the queue was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// What went through it.
    pub fn counts(&self) -> FrameCounts {
        let inner = self.lock();
        FrameCounts { waiting: inner.frames.len(), ..inner.counts }
    }
}

#[cfg(test)]
mod tests {
    use fleetloop_models::picture::Channels;
    use proptest::prelude::*;

    use super::*;

    fn frame(number: u64) -> Box<Arrived> {
        Box::new(Arrived {
            frame: Frame::new(1, 1, Channels::Grey, vec![0]).unwrap(),
            number,
            due: Duration::ZERO,
            captured_at: UnixMillis(0),
            clock: ClockState::Unsynced,
        })
    }

    fn pop(queue: &FrameQueue) -> Option<u64> {
        match queue.pop(Duration::ZERO) {
            Popped::Frame(arrived) => Some(arrived.number),
            Popped::Empty | Popped::Closed => None,
        }
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts_it() {
        let queue = FrameQueue::new(2);
        queue.set_accepting(true);
        (0..5).for_each(|number| queue.push(frame(number)));
        assert_eq!(queue.counts(), FrameCounts { frames_in: 5, frames_dropped: 3, waiting: 2 });
        assert_eq!((pop(&queue), pop(&queue), pop(&queue)), (Some(3), Some(4), None));
    }

    #[test]
    fn a_queue_that_is_made_shorter_drops_nothing_before_the_next_frame() {
        let queue = FrameQueue::new(4);
        queue.set_accepting(true);
        (0..4).for_each(|number| queue.push(frame(number)));
        queue.set_capacity(2);
        assert_eq!(queue.counts(), FrameCounts { frames_in: 4, frames_dropped: 0, waiting: 4 });
        assert_eq!(pop(&queue), Some(0));
        queue.push(frame(4));
        assert_eq!(queue.counts(), FrameCounts { frames_in: 5, frames_dropped: 2, waiting: 2 });
        assert_eq!((pop(&queue), pop(&queue), pop(&queue)), (Some(3), Some(4), None));
        queue.set_capacity(3);
        (5..8).for_each(|number| queue.push(frame(number)));
        assert_eq!(queue.counts(), FrameCounts { frames_in: 8, frames_dropped: 2, waiting: 3 });
    }

    #[derive(Debug, Clone)]
    enum Op {
        Push,
        Pop,
        Missed(u64),
        Capacity(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => Just(Op::Push),
            2 => Just(Op::Pop),
            1 => (0u64..5).prop_map(Op::Missed),
            1 => (0usize..6).prop_map(Op::Capacity),
        ]
    }

    proptest! {
        #[test]
        fn every_frame_is_taken_dropped_or_waiting_and_the_newest_are_the_ones_that_stay(
            ops in prop::collection::vec(op(), 1..100),
        ) {
            let queue = FrameQueue::new(3);
            queue.set_accepting(true);
            let (mut pushed, mut taken, mut capacity, mut newest) = (0, 0, 3, None);
            for op in ops {
                match op {
                    Op::Push => {
                        queue.push(frame(pushed));
                        pushed += 1;
                        prop_assert!(queue.counts().waiting <= capacity);
                    }
                    Op::Pop => {
                        if let Some(number) = pop(&queue) {
                            prop_assert!(newest.is_none_or(|newest| number > newest));
                            newest = Some(number);
                            taken += 1;
                        }
                    }
                    Op::Missed(frames) => queue.missed(frames),
                    Op::Capacity(frames) => {
                        queue.set_capacity(frames);
                        capacity = frames.max(1);
                    }
                }
                let counts = queue.counts();
                let there = taken + counts.frames_dropped + counts.waiting as u64;
                prop_assert_eq!(counts.frames_in, there);
            }
            let waiting = queue.counts().waiting as u64;
            for number in pushed - waiting..pushed {
                prop_assert_eq!(pop(&queue), Some(number));
            }
        }
    }

    #[test]
    fn frames_before_the_first_model_are_not_counted() {
        let queue = FrameQueue::new(2);
        queue.push(frame(0));
        queue.missed(4);
        assert_eq!(queue.counts(), FrameCounts::default());
        assert!(!queue.wait_accepting(Duration::ZERO));
    }

    #[test]
    fn a_closed_queue_gives_what_it_holds_and_then_ends() {
        let queue = FrameQueue::new(2);
        queue.set_accepting(true);
        queue.push(frame(0));
        queue.close();
        queue.push(frame(1));
        assert_eq!(pop(&queue), Some(0));
        assert!(matches!(queue.pop(Duration::from_secs(60)), Popped::Closed));
    }

    #[test]
    fn frames_that_came_while_the_process_stood_still_count_as_dropped() {
        let queue = FrameQueue::new(2);
        queue.set_accepting(true);
        queue.missed(7);
        assert_eq!((queue.counts().frames_in, queue.counts().frames_dropped), (7, 7));
    }
}
