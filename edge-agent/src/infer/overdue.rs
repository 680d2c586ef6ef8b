//! A time limit for every run of a model in this process.
//!
//! A thread looks at the run under way four times in the limit. A run over it is ended, and its frame
//! has failed ([`fleetloop_models::session::RunLimit`]). One that does not come back although it was told
//! to, for as long as the limit again, holds its thread for good: whoever was given as [`Hung`] hears
//! which model that is, and ends the process. The same goes for [`IN_A_ROW`] runs over the limit in a row.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetloop_models::session::{Look, RunLimit};
use fleetloop_protocol::BundleDigest;

use crate::threads;

/// Runs over the limit in a row from which a model does not answer any more.
pub(super) const IN_A_ROW: u32 = 3;

/// Hears which model does not come back, and is expected to end the process.
pub type Hung = Box<dyn Fn(BundleDigest) + Send + Sync>;

/// What is looked at.
pub(super) struct Overdue {
    /// The runs of the worker's thread.
    pub worker: Runs,
    /// The runs of the loader's.
    pub loader: Runs,
    limit: Duration,
    hung: Hung,
}

/// The runs of one thread.
pub(super) struct Runs {
    pub limit: RunLimit,
    model: Mutex<Option<BundleDigest>>,
}

impl Runs {
    fn new() -> Result<Self, std::io::Error> {
        let limit = RunLimit::new().map_err(std::io::Error::other)?;
        Ok(Self { limit, model: Mutex::default() })
    }

    /// The next runs are this model's.
    pub fn of(&self, model: BundleDigest) {
        *self.model.lock().unwrap_or_else(PoisonError::into_inner) = Some(model);
    }

    fn model(&self) -> Option<BundleDigest> {
        *self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the thread when it is dropped.
pub(super) struct Looking(#[expect(dead_code, reason = "its end is the signal")] SyncSender<()>);

impl Overdue {
    pub(super) fn new(limit: Duration, hung: Hung) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self { worker: Runs::new()?, loader: Runs::new()?, limit, hung }))
    }

    /// How long a run has been over the limit.
    pub(super) fn since(&self) -> Option<Duration> {
        let over = |runs: &Runs| match runs.limit.look(self.limit) {
            Look::Ending(since) => Some(since),
            Look::Idle | Look::Within(_) => None,
        };
        over(&self.worker).max(over(&self.loader))
    }

    /// A model does not answer any more.
    pub(super) fn hung(&self, model: BundleDigest) {
        (self.hung)(model);
    }

    /// Starts the thread that looks.
    pub(super) fn spawn(self: Arc<Self>) -> std::io::Result<Looking> {
        // Nothing is ever sent: the sender's end is the signal.
        let (looking, ended) = sync_channel(1);
        threads::spawn("limit", move || {
            while ended.recv_timeout(self.limit / 4) == Err(RecvTimeoutError::Timeout) {
                self.look(&self.worker);
                self.look(&self.loader);
            }
        })?;
        Ok(Looking(looking))
    }

    fn look(&self, runs: &Runs) {
        if let Look::Ending(since) = runs.limit.look(self.limit)
            && since > self.limit
            && let Some(model) = runs.model()
        {
            let limit_s = self.limit.as_secs();
            tracing::error!(bundle = %model, limit_s, "a model does not come back from a frame");
            self.hung(model);
        }
    }
}
