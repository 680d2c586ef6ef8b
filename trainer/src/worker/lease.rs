//! Keeps a lease up while a job is done, and tells the hub how far it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetloop_protocol::api::jobs::{LEASE_S, LEFT_OUT_NAMED, Lease, LeftOut, Progress, Renew};
use fleetloop_protocol::backoff::Backoff;
use tokio::task::JoinHandle;

use super::client::Hub;
use super::patience::Patience;
use crate::job::Event;

/// A third of the lease: two renewals may be lost before it ends.
const EVERY: Duration = Duration::from_secs(LEASE_S / 3);
/// The shortest wait after a renewal that failed.
const SOON: Duration = Duration::from_secs(1);
/// How often stopping is looked for between renewals.
const LOOK: Duration = Duration::from_millis(200);

/// The last thing known of a job's progress.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<Progress>>);

impl Shared {
    /// Takes over an event of the job.
    pub fn set(&self, event: &Event) {
        if let Event::LeftOut(item) = event {
            return self.left_out(item);
        }
        let (phase, fraction, loss) = super::phase(event);
        self.replace(phase, fraction, loss);
    }

    /// A phase without a loss.
    pub fn phase(&self, phase: &str, fraction: f32) {
        self.replace(phase, fraction, None);
    }

    /// What is left out stays known to the end.
    fn replace(&self, phase: &str, fraction: f32, loss: Option<f32>) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        phase.clone_into(&mut progress.phase);
        (progress.fraction, progress.loss) = (fraction, loss);
    }

    fn left_out(&self, item: &LeftOut) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.left_out += 1;
        if progress.left_out_first.len() < LEFT_OUT_NAMED {
            progress.left_out_first.push(item.clone());
        }
    }

    fn get(&self) -> Progress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A lease that is kept up until it is stopped or lost.
pub struct Renewing {
    progress: Shared,
    cancel: Arc<AtomicBool>,
    lost: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Renewing {
    /// Begins to renew. The job is cancelled when the lease is lost or `stop` is set.
    pub fn start(hub: Hub, lease: &Lease, stop: Arc<AtomicBool>) -> Self {
        let progress = Shared(Arc::new(Mutex::new(Progress {
            phase: "download".to_owned(),
            ..Progress::default()
        })));
        let flags: [Arc<AtomicBool>; 3] = Default::default();
        let [cancel, lost, over] = flags.clone();
        let (id, token, shared) = (lease.job, lease.lease.clone(), progress.clone());
        let task = tokio::spawn(async move {
            let [cancel, lost, over] = flags;
            let mut backoff = Backoff::new(SOON, EVERY);
            while !over.load(Ordering::Relaxed) {
                let mut wait = EVERY;
                let renew = Renew { lease: token.clone(), progress: shared.get() };
                let said = renew.progress.phase.clone();
                match hub.renew(id, &renew).await {
                    Ok(()) => backoff.reset(),
                    Err(error) if error.is_refusal() => {
                        lost.store(true, Ordering::Relaxed);
                        cancel.store(true, Ordering::Relaxed);
                        return;
                    }
                    Err(error) => {
                        wait = backoff.next_wait();
                        tracing::warn!(job = id.0, %error, "lease not renewed; trying again");
                    }
                }
                let mut waited = Duration::ZERO;
                // A new phase is told at once: a short job would otherwise end before it is seen.
                while waited < wait && shared.get().phase == said && !over.load(Ordering::Relaxed) {
                    if stop.load(Ordering::Relaxed) {
                        cancel.store(true, Ordering::Relaxed);
                    }
                    tokio::time::sleep(LOOK).await;
                    waited += LOOK;
                }
            }
        });
        Self { progress, cancel, lost, over, task }
    }

    /// Where the job writes how far it is.
    pub fn progress(&self) -> Shared {
        self.progress.clone()
    }

    /// The flag that cancels the job.
    pub fn cancel(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancel)
    }

    /// How to ask the hub in the middle of this job.
    pub fn patience(&self) -> Patience {
        Patience::new(self.cancel())
    }

    /// Whether the job is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Whether the hub gave the job to another.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Stops renewing and waits for the last renewal to end.
    pub async fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        if self.task.await.is_err() {
            tracing::error!("the renewing task ended unexpectedly");
        }
    }
}
