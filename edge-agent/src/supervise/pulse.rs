//! A sign of life: when a thread last went round its loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Moved by one thread, looked at by another. Clones are one pulse.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// Milliseconds of monotonic time, plus one; 0 before the first.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// The thread is alive at monotonic time `now`. Never waits.
    pub fn beat(&self, now: Duration) {
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last.store(ms.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether it was alive at some moment of the last `span`; never before its first beat.
    pub fn moved_within(&self, span: Duration, now: Duration) -> bool {
        let Some(last) = self.last.load(Ordering::Relaxed).checked_sub(1) else { return false };
        now.saturating_sub(Duration::from_millis(last)) <= span
    }
}
