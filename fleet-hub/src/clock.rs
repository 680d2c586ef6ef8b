//! The hub's clock, injected everywhere; the only place that reads the system's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fleetloop_protocol::UnixMillis;

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `now` until it is [set](Self::set).
    pub fn manual(now: UnixMillis) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(now.0))))
    }

    /// Sets a manual clock; the system's is left alone.
    pub fn set(&self, now: UnixMillis) {
        if let Source::Manual(time) = &self.0 {
            time.store(now.0, Ordering::Relaxed);
        }
    }

    /// Now. Before 1970 is 1970.
    pub fn now(&self) -> UnixMillis {
        match &self.0 {
            Source::Manual(time) => UnixMillis(time.load(Ordering::Relaxed)),
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                // 2^64 milliseconds are 584 million years.
                UnixMillis(since.as_millis() as u64)
            }
        }
    }
}
