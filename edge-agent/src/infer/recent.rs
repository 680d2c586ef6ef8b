//! A few frames of the source, copied when a new model is to be tried on them and not otherwise.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleetloop_models::picture::Frame;

/// How often it is looked whether they came.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct Recent {
    wanted: AtomicUsize,
    frames: Mutex<Vec<Frame>>,
}

impl Recent {
    /// A frame is about to be answered. Costs a load of an integer while none is wanted.
    pub(super) fn offer(&self, frame: &Frame) {
        if self.wanted.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        // Again, within the lock under which it is set to none.
        let wanted = self.wanted.load(Ordering::Relaxed);
        if wanted > 0 {
            frames.push(frame.clone());
            self.wanted.store(wanted - 1, Ordering::Relaxed);
        }
    }

    /// The next `count` frames, or those that come `within` that time. Blocks. One caller at a time.
    pub(super) fn collect(&self, count: usize, within: Duration) -> Vec<Frame> {
        let begun = Instant::now();
        self.wanted.store(count, Ordering::Relaxed);
        while self.wanted.load(Ordering::Relaxed) > 0 && begun.elapsed() < within {
            std::thread::sleep(LOOK_EVERY);
        }
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.store(0, Ordering::Relaxed);
        std::mem::take(&mut frames)
    }
}
