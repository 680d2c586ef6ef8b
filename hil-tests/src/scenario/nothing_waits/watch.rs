//! Reads the latency of every frame, for as long as it lives.
//!
//! A device's time is the hub's, as it was when an answer left the hub; the machine's is ahead of it by
//! what the answer took, some tens of milliseconds where the hub goes last. The newest frame of a list was
//! answered a moment before the list was read: that says by how much.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use crate::api::Local;
use crate::fleet::Answered;

/// How many lists say how far the machine's time is ahead. The least counts: in others a frame was long
/// under way when they were read.
const LISTS: usize = 8;

/// A frame that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// When it was taken, in microseconds since 1970 by this machine's clock; a millisecond or two late.
    pub taken_us: u64,
    /// From the moment it was due to the answer, in microseconds.
    pub latency_us: u64,
}

/// In the order of the frames.
type Seen = Arc<Mutex<Vec<Frame>>>;

/// A thread that reads them.
pub(super) struct Watch {
    seen: Seen,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins with the next frame. At `rate_hz` it asks twice as often as the port forgets, and four
    /// times a second at least.
    pub(super) fn begin(url: String, rate_hz: f64) -> Result<Self> {
        let every = Duration::from_secs_f64((Answered::KEPT as f64 / rate_hz / 2.0).min(0.25));
        let (seen, over) = (Seen::default(), Arc::new(AtomicBool::new(false)));
        let local = Local::new()?;
        let (to, end) = (Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || {
            let mut lists = Lists::default();
            loop {
                let is_last = end.load(Ordering::Relaxed);
                // An answer that did not come leaves frames out; the next one goes on.
                let latest: Vec<Answered> = local.get(&url).unwrap_or_default();
                let fresh = lists.fresh(&latest, now_us());
                to.lock().unwrap_or_else(PoisonError::into_inner).extend(fresh);
                if is_last {
                    break;
                }
                std::thread::sleep(every);
            }
        });
        let thread = thread.context("cannot start the thread that reads latencies")?;
        Ok(Self { seen, over, thread: Some(thread) })
    }

    /// All frames up to now.
    pub(super) fn end(mut self) -> Vec<Frame> {
        self.join();
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn join(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.join();
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Lists {
    newest: Option<u64>,
    ahead_us: VecDeque<u64>,
}

impl Lists {
    /// The frames of a list, the newest first, that no earlier one had: the oldest first.
    fn fresh(&mut self, latest: &[Answered], read_us: u64) -> Vec<Frame> {
        if let Some(newest) = latest.first() {
            let answered_us = newest.captured_at_ms * 1000 + newest.latency_us;
            self.ahead_us.truncate(LISTS - 1);
            self.ahead_us.push_front(read_us.saturating_sub(answered_us));
        }
        let ahead_us = self.ahead_us.iter().min().copied().unwrap_or(0);
        let frame = |answered: &Answered| Frame {
            taken_us: answered.captured_at_ms * 1000 + ahead_us,
            latency_us: answered.latency_us,
        };
        let is_new = |answered: &&Answered| self.newest.is_none_or(|n| answered.frame > n);
        let fresh = latest.iter().rev().filter(is_new).map(frame).collect();
        self.newest = latest.first().map(|a| a.frame).or(self.newest);
        fresh
    }
}

/// Microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "compared with what agents on this machine print")]
pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_once_and_on_the_clock_of_this_machine() {
        // Two milliseconds long each; the device's clock is 40 ms behind, a list is read 1 ms later.
        let list = |from: u64, to: u64| -> Vec<Answered> {
            let answered =
                |frame| Answered { frame, captured_at_ms: 1000 + frame * 3, latency_us: 2000 };
            (from..to).rev().map(answered).collect()
        };
        let taken = |frames: &[Frame]| frames.iter().map(|f| f.taken_us).collect::<Vec<_>>();
        let mut lists = Lists::default();
        let read_us = |newest: u64| (1000 + newest * 3 + 2 + 40 + 1) * 1000;
        let ahead = 41_000;
        let first = lists.fresh(&list(0, 3), read_us(2));
        assert_eq!(taken(&first), [1_000_000 + ahead, 1_003_000 + ahead, 1_006_000 + ahead]);
        // Read while a frame was under way for 30 ms.
        let second = lists.fresh(&list(1, 5), read_us(4) + 30_000);
        assert_eq!(taken(&second), [1_009_000 + ahead, 1_012_000 + ahead]);
        assert!(lists.fresh(&[], read_us(9)).is_empty());
        assert!(lists.fresh(&list(1, 5), read_us(5)).is_empty());
    }
}
