//! Asking the hub again in the middle of a job: a hub that is restarted costs a pause, not the job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleetloop_protocol::backoff::Backoff;

use super::LONGEST_PAUSE;
use super::client::HubError;

/// The shortest pause.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How often the job's end is looked for in a pause.
const LOOK: Duration = Duration::from_millis(200);

/// Asks until the hub answers or the job is cancelled, which it is when its lease is another's.
#[derive(Debug, Clone)]
pub struct Patience {
    cancelled: Arc<AtomicBool>,
}

impl Patience {
    pub const fn new(cancelled: Arc<AtomicBool>) -> Self {
        Self { cancelled }
    }

    /// What the hub answers in the end.
    ///
    /// # Errors
    /// [`HubError`] when the hub says no, or when the job is cancelled before it answers.
    pub async fn ask<T, F>(&self, question: impl Fn() -> F) -> Result<T, HubError>
    where
        F: Future<Output = Result<T, HubError>>,
    {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match question().await {
                Err(error) if error.may_pass() && !self.is_over() => {
                    let pause = backoff.next_wait();
                    tracing::warn!(%error, pause_s = pause.as_secs_f32(), "asking the hub again");
                    self.rest(pause).await;
                }
                ended => return ended,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    async fn rest(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() && !self.is_over() {
            tokio::time::sleep(LOOK.min(left)).await;
            left = left.saturating_sub(LOOK);
        }
    }
}
