//! Keeps a lease up while a job is done, and tells the hub how far it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetloop_protocol::api::jobs::{LEASE_S, Lease, Progress, Renew};
use tokio::task::JoinHandle;

use super::client::Hub;
use crate::job::Event;

/// A third of the lease: two renewals may be lost before it ends.
const EVERY: Duration = Duration::from_secs(LEASE_S / 3);
/// How often stopping is looked for between renewals.
const LOOK: Duration = Duration::from_millis(200);

/// The last thing known of a job's progress.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<Progress>>);

impl Shared {
    /// Takes over an event of the job.
    pub fn set(&self, event: &Event) {
        let (phase, fraction, loss) = super::phase(event);
        self.replace(Progress { phase: phase.to_owned(), fraction, loss });
    }

    /// A phase without a loss.
    pub fn phase(&self, phase: &str, fraction: f32) {
        self.replace(Progress { phase: phase.to_owned(), fraction, loss: None });
    }

    fn replace(&self, progress: Progress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress;
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
            fraction: 0.0,
            loss: None,
        })));
        let flags: [Arc<AtomicBool>; 3] = Default::default();
        let [cancel, lost, over] = flags.clone();
        let (id, token, shared) = (lease.job, lease.lease.clone(), progress.clone());
        let task = tokio::spawn(async move {
            let [cancel, lost, over] = flags;
            while !over.load(Ordering::Relaxed) {
                let renew = Renew { lease: token.clone(), progress: shared.get() };
                match hub.renew(id, &renew).await {
                    Ok(()) => {}
                    Err(error) if error.is_refusal() => {
                        lost.store(true, Ordering::Relaxed);
                        cancel.store(true, Ordering::Relaxed);
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(job = id.0, %error, "lease not renewed; trying again");
                    }
                }
                let mut waited = Duration::ZERO;
                while waited < EVERY && !over.load(Ordering::Relaxed) {
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
