//! Reads the latency of every frame, for as long as it lives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::api::Local;
use crate::fleet::Answered;

/// In the order of the frames.
type Seen = Arc<Mutex<Vec<Answered>>>;

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
            let mut newest = None;
            while !end.load(Ordering::Relaxed) {
                // An answer that did not come leaves frames out; the next one goes on.
                let latest: Vec<Answered> = local.get(&url).unwrap_or_default();
                let is_new = |answered: &&Answered| newest.is_none_or(|n| answered.frame > n);
                let fresh: Vec<Answered> = latest.iter().rev().filter(is_new).copied().collect();
                newest = latest.first().map(|a| a.frame).or(newest);
                to.lock().unwrap_or_else(PoisonError::into_inner).extend(fresh);
                std::thread::sleep(every);
            }
        });
        let thread = thread.context("cannot start the thread that reads latencies")?;
        Ok(Self { seen, over, thread: Some(thread) })
    }

    /// What was read since it was last asked.
    pub(super) fn take(&self) -> Vec<Answered> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}
