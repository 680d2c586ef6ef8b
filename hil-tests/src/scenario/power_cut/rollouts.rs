//! Rollouts without end, from one model to the next, on a thread of their own.
//!
//! There are three models, so that a device, which keeps two, fetches anew each time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::rollouts::{Phase, Rollout, RolloutRequest};

use super::draw;
use crate::api::ApiClient;
use crate::draws::Draws;

/// How often a rollout is looked at.
const LOOK: Duration = Duration::from_millis(40);

/// The longest pause between two rollouts.
const PAUSE: Duration = Duration::from_millis(400);

/// The thread and what it tells.
pub(super) struct Rollouts {
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    stop: AtomicBool,
    under_way: AtomicBool,
    begun: AtomicU64,
    done: AtomicU64,
    halted: Mutex<Vec<String>>,
}

impl Rollouts {
    /// Begins with the second of `bundles`; the first is what runs.
    pub(super) fn start(api: ApiClient, bundles: Vec<BundleDigest>, seed: u64) -> Result<Self> {
        let told = Arc::new(Told::default());
        let shared = Arc::clone(&told);
        let work = move || {
            let mut draws = Draws::new(seed);
            for bundle in bundles.iter().cycle().skip(1) {
                std::thread::sleep(draw::up_to(&mut draws, PAUSE));
                if !shared.roll_out(&api, *bundle) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("rollouts".into()).spawn(work);
        let thread = thread.context("cannot start the thread that rolls models out")?;
        Ok(Self { told, thread: Some(thread) })
    }

    /// How many have begun.
    pub(super) fn begun(&self) -> u64 {
        self.told.begun.load(Ordering::SeqCst)
    }

    /// Whether one is under way, as far as the hub has said.
    pub(super) fn under_way(&self) -> bool {
        self.told.under_way.load(Ordering::SeqCst)
    }

    /// How many came to their end, and why others were halted.
    pub(super) fn outcome(&self) -> (u64, Vec<String>) {
        let halted = self.told.halted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.told.done.load(Ordering::SeqCst), halted)
    }

    /// No more of them; the one under way is left to itself.
    pub(super) fn end(&mut self) {
        self.told.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed, and shows in the figures.
            let _ = thread.join();
        }
    }
}

impl Drop for Rollouts {
    fn drop(&mut self) {
        self.end();
    }
}

impl Told {
    /// Whether to go on afterwards.
    fn roll_out(&self, api: &ApiClient, bundle: BundleDigest) -> bool {
        let request = RolloutRequest { bundle, canary: None };
        // The hub may be without power: what it answered with may be lost, and what it took may
        // not have been answered. Its list says which.
        let path = loop {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            let _ = api.post("rollouts", &request);
            let newest = api.get::<Vec<Rollout>>("rollouts").ok().and_then(newest);
            if let Some(rollout) = newest.filter(|rollout| rollout.bundle == bundle) {
                break format!("rollouts/{}", rollout.id.0);
            }
            std::thread::sleep(LOOK);
        };
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.under_way.store(true, Ordering::SeqCst);
        let went_on = self.watch(api, &path);
        self.under_way.store(false, Ordering::SeqCst);
        went_on
    }

    fn watch(&self, api: &ApiClient, path: &str) -> bool {
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            match api.get::<Rollout>(path).ok().map(|rollout| rollout.phase) {
                Some(Phase::Done) => {
                    self.done.fetch_add(1, Ordering::SeqCst);
                    return true;
                }
                Some(Phase::Halted { reason, .. }) => {
                    self.halted.lock().unwrap_or_else(PoisonError::into_inner).push(reason);
                    return true;
                }
                Some(Phase::Cancelled) => return true,
                Some(Phase::Canary | Phase::Everyone) | None => std::thread::sleep(LOOK),
            }
        }
    }
}

fn newest(rollouts: Vec<Rollout>) -> Option<Rollout> {
    rollouts.into_iter().max_by_key(|rollout| rollout.id)
}
