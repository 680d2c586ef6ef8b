//! When the machine itself stood still: a host took its processors, or its kernel did not come round
//! to them. What a measurement sees then is not the product's doing.
//!
//! A thread for each processor, before all others on it (`SCHED_FIFO`), sleeps a millisecond at a
//! time; what it oversleeps is a pause. The idea is jHiccup's (G. Tene).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::system;

/// How long a watcher sleeps.
const NAP: Duration = Duration::from_millis(1);

/// The shortest pause that counts: ten times what timers are late by themselves.
const SHORTEST: Duration = Duration::from_micros(500);

/// One processor stood still, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// When it was last seen to run.
    pub from_us: u64,
    /// When it ran again.
    pub to_us: u64,
}

/// Watches all processors for as long as it lives.
pub struct Pauses {
    seen: Arc<Mutex<Vec<Pause>>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pauses {
    /// Why they cannot be seen here, if so.
    pub(super) fn lacking() -> Option<String> {
        let tried = std::thread::spawn(system::go_first).join();
        let tried = tried.unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")));
        tried.err().map(|error| format!("no real-time priority: {error}; needs CAP_SYS_NICE"))
    }

    /// Begins.
    ///
    /// # Errors
    /// When the system gives no thread or no priority.
    pub(super) fn watch() -> Result<Self> {
        let processors = std::thread::available_parallelism().context("cannot count processors")?;
        let mut pauses = Self { seen: Arc::default(), over: Arc::default(), threads: Vec::new() };
        for processor in 0..processors.get() {
            let (seen, over) = (Arc::clone(&pauses.seen), Arc::clone(&pauses.over));
            let (ready, begun) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new().name("pauses".into()).spawn(move || {
                let first = system::stay_on(processor).and_then(|()| system::go_first());
                let goes = first.is_ok();
                // Nobody waits any more when the rig is being stopped.
                ready.send(first).ok();
                if goes {
                    watch(&seen, &over);
                }
            });
            pauses.threads.push(thread.context("cannot start a thread that sees pauses")?);
            begun.recv()?.context("cannot go before all others, to see pauses of the machine")?;
        }
        Ok(pauses)
    }

    /// What was seen since it was last asked.
    pub fn take(&self) -> Vec<Pause> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there has been printed already.
            drop(thread.join());
        }
    }
}

fn watch(seen: &Mutex<Vec<Pause>>, over: &AtomicBool) {
    let mut last = Instant::now();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(NAP);
        let stood = last.elapsed();
        last += stood;
        if stood >= NAP + SHORTEST {
            let to_us = now_us();
            let from_us = to_us.saturating_sub(stood.as_micros() as u64);
            let pause = Pause { from_us, to_us };
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(pause);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "compared with what agents on this machine print")]
fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_is_kept_busy_by_one_that_goes_first_has_paused() {
        if let Some(why) = Pauses::lacking() {
            return println!("skipped: {why}");
        }
        let pauses = Pauses::watch().unwrap();
        // On one processor, and of the same priority as its watcher, which waits for the end.
        let busy = std::thread::spawn(|| {
            system::stay_on(0).and_then(|()| system::go_first()).unwrap();
            let (from_us, begun) = (now_us(), Instant::now());
            while begun.elapsed() < Duration::from_millis(50) {}
            (from_us, now_us())
        });
        let (from_us, to_us) = busy.join().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let seen = pauses.take();
        let covers = |p: &Pause| p.from_us <= from_us + 2_000 && p.to_us >= to_us;
        assert!(seen.iter().any(covers), "{seen:?}, {from_us} to {to_us}");
    }
}
