//! A time limit for a session's runs. A run notes when it began; whoever watches looks from time to time
//! and has the runtime end what takes too long. Beginning and ending cost two uncontended locks, less
//! than a microsecond.
//!
//! The runtime ends a run between two nodes of the graph, those of a loop's body included: a single node
//! that does not come back is not ended by this, and [`Look::Ending`] says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ort::session::RunOptions;

/// The runs of the sessions that share it, of which one is under way at a time. All clones are one.
#[derive(Clone)]
pub struct RunLimit {
    inner: Arc<Inner>,
}

struct Inner {
    options: RunOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    began: Option<Instant>,
    /// When the run under way was told to end.
    told: Option<Instant>,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// No run is under way.
    Idle,
    /// One is, for so long, within the limit.
    Within(Duration),
    /// One was over the limit and was told to end so long ago.
    Ending(Duration),
}

impl std::fmt::Debug for RunLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunLimit").finish_non_exhaustive()
    }
}

impl RunLimit {
    /// A limit that nobody watches yet.
    ///
    /// # Errors
    /// The runtime's, when it has no memory.
    pub fn new() -> Result<Self, ort::Error> {
        let inner = Inner { options: RunOptions::new()?, state: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Looks at the run under way and tells it to end if it takes longer than `limit`.
    pub fn look(&self, limit: Duration) -> Look {
        let mut state = self.state();
        let Some(began) = state.began else { return Look::Idle };
        if let Some(told) = state.told {
            return Look::Ending(told.elapsed());
        }
        let run = began.elapsed();
        if run <= limit {
            return Look::Within(run);
        }
        state.told = Some(Instant::now());
        // Within the lock: the run that is told is the one that was looked at.
        drop(self.inner.options.terminate());
        Look::Ending(Duration::ZERO)
    }

    /// A run begins, with [`RunLimit::options`].
    pub(super) fn begin(&self) -> Instant {
        let began = Instant::now();
        self.state().began = Some(began);
        began
    }

    pub(super) fn options(&self) -> &RunOptions {
        &self.inner.options
    }

    /// The run ended; for how long it ran if it was told to end.
    pub(super) fn end(&self, began: Instant) -> Option<Duration> {
        let mut state = self.state();
        state.began = None;
        let told = state.told.take();
        if told.is_some() {
            // Or the next run would end at once.
            drop(self.inner.options.unterminate());
        }
        told.map(|_| began.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
