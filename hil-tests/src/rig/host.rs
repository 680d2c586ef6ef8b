//! What a machine that others share gives from moment to moment: when it stood still, because its
//! host took its processors or its kernel did not come round to them, and how fast it was else. What a
//! measurement sees of that is not the product's doing.
//!
//! A thread for each processor, before all others on it (`SCHED_FIFO`), sleeps a millisecond at a
//! time. What it oversleeps is a pause; the idea is jHiccup's (G. Tene). Awake it does a fixed piece of
//! work in registers, which takes nearly twice as long while a neighbour is at work on the same core's
//! other thread. Caches and memory, which the product's own processes share, do not come into it; a
//! core does where the machine's processors are two threads of one ([`Host::processors_are_apart`]).

use std::hint::black_box;
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

/// How often the piece of work is done each time. The shortest counts: an interrupt lengthens one.
const TIMES: u32 = 3;

/// Work beside a busy neighbour on the same core takes longer than this many times what it takes alone.
const APART: f64 = 1.15;

/// How long each of two processors is tried alone, and beside the other.
const TRIAL: Duration = Duration::from_millis(400);

/// One processor stood still, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// When it was last seen to run.
    pub from_us: u64,
    /// When it ran again.
    pub to_us: u64,
}

/// The piece of work, on one processor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// When it was done, in microseconds since 1970.
    pub at_us: u64,
    /// How long it took, in microseconds.
    pub took_us: f64,
}

/// What was seen of all processors.
#[derive(Debug, Default)]
pub struct Seen {
    /// When one stood still.
    pub pauses: Vec<Pause>,
    /// How fast each was.
    pub work: Vec<Work>,
}

/// Watches all processors for as long as it lives.
pub struct Host {
    apart: bool,
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Host {
    /// Why it cannot be watched here, if so.
    pub(super) fn lacking() -> Option<String> {
        let tried = std::thread::spawn(system::go_first).join();
        let tried = tried.unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")));
        tried.err().map(|error| format!("no real-time priority: {error}; needs CAP_SYS_NICE"))
    }

    /// Tries whether processors share a core, which takes a second, and begins.
    ///
    /// # Errors
    /// When the system gives no thread or no priority.
    pub(super) fn watch() -> Result<Self> {
        let (alone, beside) = (first_processor_beside(0)?, first_processor_beside(processors()?)?);
        let apart = beside <= alone * APART;
        let (seen, over) = Default::default();
        let mut host = Self { apart, seen, over, threads: Vec::new() };
        for processor in 0..processors()? {
            let (seen, over) = (Arc::clone(&host.seen), Arc::clone(&host.over));
            let (ready, begun) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new().name("host".into()).spawn(move || {
                let first = system::stay_on(processor).and_then(|()| system::go_first());
                let goes = first.is_ok();
                // Nobody waits any more when the rig is being stopped.
                ready.send(first).ok();
                if goes {
                    watch(&seen, &over);
                }
            });
            host.threads.push(thread.context("cannot start a thread that watches the host")?);
            begun.recv()?.context("cannot go before all others, to see pauses of the machine")?;
        }
        Ok(host)
    }

    /// What was seen since it was last asked.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the first processor is as fast while all others are busy. Where it is not, its work
    /// tells of the product's other threads as well as of the host.
    pub const fn processors_are_apart(&self) -> bool {
        self.apart
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there has been printed already.
            drop(thread.join());
        }
    }
}

fn processors() -> Result<usize> {
    let processors = std::thread::available_parallelism().context("cannot count processors")?;
    Ok(processors.get())
}

fn watch(seen: &Mutex<Seen>, over: &AtomicBool) {
    let mut last = Instant::now();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(NAP);
        let stood = last.elapsed();
        last += stood;
        let (to_us, took_us) = (now_us(), work_us());
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if stood >= NAP + SHORTEST {
            let from_us = to_us.saturating_sub(stood.as_micros() as u64);
            seen.pauses.push(Pause { from_us, to_us });
        }
        seen.work.push(Work { at_us: to_us, took_us });
    }
}

/// How long the piece of work takes now, in microseconds.
fn work_us() -> f64 {
    let once = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64() * 1e6
    };
    (0..TIMES).map(once).fold(f64::INFINITY, f64::min)
}

/// Eight chains of sums at once, more than a core's units can take: each cycle that it gives to a
/// neighbour is missing here.
#[inline(never)]
fn work() {
    let mut values = black_box([1_u64, 2, 3, 4, 5, 6, 7, 8]);
    for step in 0..1000_u64 {
        for value in &mut values {
            *value = (*value ^ step).wrapping_add(step >> 1).rotate_left(5);
        }
    }
    black_box(values);
}

/// The shortest piece of work on the first processor, in microseconds, while those of the numbers 1 to
/// `busy` have the same to do all the time.
fn first_processor_beside(busy: usize) -> Result<f64> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        for processor in 1..busy {
            scope.spawn(move || {
                if system::stay_on(processor).is_ok() {
                    while !over.load(Ordering::Relaxed) {
                        work();
                    }
                }
            });
        }
        let trial = scope.spawn(|| {
            let begun = system::stay_on(0).map(|()| Instant::now())?;
            let mut shortest = f64::INFINITY;
            while begun.elapsed() < TRIAL {
                shortest = shortest.min(work_us());
            }
            Ok::<_, std::io::Error>(shortest)
        });
        let shortest = trial.join();
        over.store(true, Ordering::Relaxed);
        let shortest = shortest.unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")));
        shortest.context("cannot try whether processors share a core")
    })
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
        if let Some(why) = Host::lacking() {
            return println!("skipped: {why}");
        }
        let host = Host::watch().unwrap();
        // On one processor, and of the same priority as its watcher, which waits for the end.
        let busy = std::thread::spawn(|| {
            system::stay_on(0).and_then(|()| system::go_first()).unwrap();
            let (from_us, begun) = (now_us(), Instant::now());
            while begun.elapsed() < Duration::from_millis(50) {}
            (from_us, now_us())
        });
        let (from_us, to_us) = busy.join().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let seen = host.take();
        let covers = |p: &Pause| p.from_us <= from_us + 2_000 && p.to_us >= to_us;
        assert!(seen.pauses.iter().any(covers), "{seen:?}, {from_us} to {to_us}");
        assert!(seen.work.iter().all(|work| work.took_us > 0.0));
        assert!(seen.work.len() > 10, "{seen:?}");
    }
}
