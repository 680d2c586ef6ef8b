//! Models as they are put to work: the installed one at start, ordered ones, the one before.
//!
//! A model that ends the agent again and again ([`super::trial`]) is not put to work: the one before
//! it is. Where there is no other it waits for [`PAUSE`], so that the link has time for another
//! order.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetloop_models::bundle::Bundle;
use fleetloop_protocol::BundleDigest;
use tokio::sync::watch;

use super::bundles::{Bundles, Start};
use super::error::{Retry, UpdateError};
use super::trial::{Trial, boot_id};
use crate::chain::chain;
use crate::infer::{Inference, SwapError};
use crate::shutdown::{Shutdown, reached};

/// How long a model that ends the agent, and has no other before it, is let rest at start.
pub const PAUSE: Duration = Duration::from_secs(10 * 60);

/// Whatever answers frames with a model.
pub trait ModelHost: Send + Sync + 'static {
    /// Swaps `bundle` in, by way of the optimised graph in `kept`. Success means that it reproduced its
    /// golden cases and has answered; otherwise the one before answers on.
    fn swap(
        &self,
        bundle: Bundle,
        kept: PathBuf,
    ) -> impl Future<Output = Result<(), NotSwapped>> + Send;

    /// The bundle that answered last.
    fn running(&self) -> watch::Receiver<Option<BundleDigest>>;
}

/// Why a bundle was not swapped in.
#[derive(Debug, thiserror::Error)]
#[error("cannot swap in bundle {bundle}")]
pub struct NotSwapped {
    /// Which.
    pub bundle: BundleDigest,
    /// Whether trying again can help.
    pub retry: Retry,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl ModelHost for Inference {
    async fn swap(&self, bundle: Bundle, kept: PathBuf) -> Result<(), NotSwapped> {
        let digest = bundle.digest();
        Self::swap(self, bundle, Some(kept)).await.map_err(|error| NotSwapped {
            bundle: digest,
            retry: match error {
                SwapError::Stopping { .. } => Retry::Always,
                SwapError::NoFrame { .. } | SwapError::Thread { .. } => Retry::AFewTimes,
                _ => Retry::Never,
            },
            source: Box::new(error),
        })
    }

    fn running(&self) -> watch::Receiver<Option<BundleDigest>> {
        Self::running(self)
    }
}

/// The models of a device.
pub struct Models<M> {
    bundles: Bundles,
    host: M,
    trial: Trial,
    /// The model that rests, and until when.
    resting: Option<(BundleDigest, tokio::time::Instant)>,
}

/// What is to be done without an order.
#[derive(Debug)]
pub enum Due {
    /// The model on trial has proven itself.
    Passed,
    /// This one has rested.
    Rested(BundleDigest),
}

impl<M: ModelHost> Models<M> {
    /// The models under `data_dir`, put to work by `host`.
    ///
    /// # Errors
    /// [`UpdateError`] when the folder cannot be used.
    pub fn open(data_dir: &Path, host: M) -> Result<Self, UpdateError> {
        let trial = Trial::open(data_dir, boot_id(), host.running())?;
        Ok(Self { bundles: Bundles::new(data_dir), host, trial, resting: None })
    }

    /// The bundle that answered last.
    pub fn running(&self) -> watch::Receiver<Option<BundleDigest>> {
        self.host.running()
    }

    /// Why a model is not put to work, if it ends the agent again and again.
    pub fn loops(&self, model: BundleDigest) -> Option<String> {
        self.trial.loops(model)
    }

    /// A new order names `model`: it is tried again.
    pub fn forgive(&mut self, model: BundleDigest) {
        self.trial.forgive(model);
    }

    /// Starts the installed model and keeps it at work until the signal, for a device that can follow
    /// no orders.
    pub async fn alone(mut self, mut shutdown: watch::Receiver<Shutdown>) {
        self.boot().await;
        loop {
            // Cancel-safe: the signal is only observed, and so is what is due.
            let due = tokio::select! {
                () = reached(&mut shutdown, Shutdown::Drain) => break,
                due = self.due() => due,
            };
            self.attend(due).await;
        }
        self.ended();
    }

    /// Waits until something is due.
    ///
    /// Cancel-safe: since when a model answers and until when it rests is kept.
    pub async fn due(&mut self) -> Due {
        tokio::select! {
            () = self.trial.over() => Due::Passed,
            digest = rested(self.resting) => Due::Rested(digest),
        }
    }

    /// Does what is due; whether a model was put to work.
    pub async fn attend(&mut self, due: Due) -> bool {
        match due {
            Due::Passed => {
                self.trial.passed();
                false
            }
            Due::Rested(digest) => {
                self.resting = None;
                self.host.running().borrow().is_none() && self.boot_one(digest).await
            }
        }
    }

    /// The agent ends because it was asked to.
    pub fn ended(&mut self) {
        self.trial.ended();
    }

    /// Steps 4 to 6 of [`super::bundles`].
    ///
    /// # Errors
    /// [`UpdateError`]; the model before works on.
    pub async fn install(&mut self, bundle: Bundle) -> Result<(), UpdateError> {
        let digest = bundle.digest();
        // A power cut from here to the end of `answered` starts the old bundle, and the order is
        // carried out again from the complete one on the disk.
        let before = self.trial.begin(digest);
        if let Err(error) = self.host.swap(bundle, self.bundles.optimised(digest)).await {
            self.trial.refused(before);
            if error.retry == Retry::Never {
                self.bundles.discard(digest);
            }
            return Err(UpdateError::Swap(error));
        }
        self.bundles.answered(digest)?;
        tracing::info!(bundle = %digest, "a bundle is installed and answers");
        Ok(())
    }

    /// Swaps in the current bundle or, if that fails or loops, the one before.
    pub async fn boot(&mut self) {
        let installed = match self.bundles.installed() {
            Ok(installed) => installed,
            Err(error) => {
                tracing::error!(reason = chain(&error), "cannot tell which bundle is installed");
                return;
            }
        };
        match installed.start(|model| self.trial.loops(model).is_some()) {
            Start::Nothing => {}
            Start::Current(digest) => {
                if !self.boot_one(digest).await
                    && let Some(previous) = installed.previous
                {
                    self.go_back_to(previous).await;
                }
            }
            // A power cut on the way back comes here again: the ends that count against the current
            // one are on the disk before the one before is put to work.
            Start::Back(previous) => {
                if !self.go_back_to(previous).await {
                    self.rest(installed.current);
                }
            }
            Start::Later(current) => self.rest(Some(current)),
        }
    }

    async fn go_back_to(&mut self, digest: BundleDigest) -> bool {
        let back = self.boot_one(digest).await;
        if back {
            tracing::warn!(bundle = %digest, "went back to the bundle before");
            if let Err(error) = self.bundles.went_back_to(digest) {
                tracing::error!(reason = chain(&error), "cannot record which bundle answers");
            }
        }
        back
    }

    fn rest(&mut self, model: Option<BundleDigest>) {
        let Some(digest) = model else { return };
        let pause_s = PAUSE.as_secs();
        tracing::error!(bundle = %digest, pause_s, "the only model ends the agent; it waits");
        self.resting = Some((digest, tokio::time::Instant::now() + PAUSE));
    }

    async fn boot_one(&mut self, digest: BundleDigest) -> bool {
        let reason = match self.bundles.open(digest) {
            Ok(bundle) => {
                let before = self.trial.begin(digest);
                match self.host.swap(bundle, self.bundles.optimised(digest)).await {
                    Ok(()) => return true,
                    Err(error) => {
                        self.trial.refused(before);
                        chain(&error)
                    }
                }
            }
            Err(error) => chain(&error),
        };
        tracing::error!(bundle = %digest, reason, "an installed bundle cannot be used");
        false
    }
}

/// The model whose rest is over, when it is.
async fn rested(resting: Option<(BundleDigest, tokio::time::Instant)>) -> BundleDigest {
    match resting {
        Some((digest, until)) => {
            tokio::time::sleep_until(until).await;
            digest
        }
        None => std::future::pending().await,
    }
}
