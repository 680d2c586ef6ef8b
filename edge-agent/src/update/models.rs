//! Models as they are put to work: the installed one at start, ordered ones, the one before.
//!
//! A model that ends the agent again and again ([`super::trial`]) is not put to work: the one before
//! it is. Where there is no other it waits for [`PAUSE`], so that the link has time for another
//! order.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use fleetloop_models::bundle::Bundle;
use fleetloop_protocol::BundleDigest;
use tokio::sync::watch;

use super::bundles::{Bundles, Start};
use super::error::{Retry, UpdateError};
use super::trial::{Before, Trial, boot_id};
use crate::chain::chain;
use crate::infer::{Inference, SwapError};
use crate::proof::Proof;
use crate::shutdown::{Shutdown, reached};

/// How long a model that ends the agent, and has no other before it, is let rest at start.
pub const PAUSE: Duration = Duration::from_secs(10 * 60);

/// Whatever answers frames with a model.
pub trait ModelHost: Send + Sync + 'static {
    /// Tries `bundle`, which is in `folder`, apart from the model that answers. Dropped, it ends.
    fn prove(
        &self,
        bundle: BundleDigest,
        folder: &Path,
    ) -> impl Future<Output = Result<Proof, NotSwapped>> + Send;

    /// Swaps `bundle` in, of the graph that was proven. Success means that it reproduced its golden cases
    /// and has answered; otherwise the one before answers on.
    fn swap(
        &self,
        bundle: Bundle,
        folder: &Path,
        proof: Proof,
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
    /// Whether the fault is this machine's, and the bundle was not tried.
    pub is_untried: bool,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl NotSwapped {
    fn of(bundle: BundleDigest, error: SwapError) -> Self {
        Self {
            bundle,
            retry: match error {
                SwapError::Stopping { .. } => Retry::Always,
                SwapError::NoFrame { .. }
                | SwapError::Thread { .. }
                | SwapError::Untried { .. }
                | SwapError::Stale { .. } => Retry::AFewTimes,
                _ => Retry::Never,
            },
            is_untried: matches!(error, SwapError::Untried { .. } | SwapError::Thread { .. }),
            source: Box::new(error),
        }
    }
}

impl ModelHost for Inference {
    async fn prove(&self, bundle: BundleDigest, folder: &Path) -> Result<Proof, NotSwapped> {
        Self::prove(self, bundle, folder).await.map_err(|error| NotSwapped::of(bundle, error))
    }

    async fn swap(&self, bundle: Bundle, folder: &Path, proof: Proof) -> Result<(), NotSwapped> {
        let (digest, is_kept) = (bundle.digest(), proof.is_kept());
        let error = match Self::swap(self, bundle, proof).await {
            Ok(()) => return Ok(()),
            // What was kept is not what it seemed to be; the bundle itself may be good.
            Err(source @ (SwapError::Session { .. } | SwapError::Golden { .. })) if is_kept => {
                Self::forget_proof(folder);
                SwapError::Stale { bundle: digest, source: Box::new(source) }
            }
            Err(error) => error,
        };
        Err(NotSwapped::of(digest, error))
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
    /// What was on trial before the model that is being tried.
    before: Option<Before>,
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
        Ok(Self { bundles: Bundles::new(data_dir), host, trial, before: None, resting: None })
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

    /// Tries a bundle that was fetched, apart from the model that answers; [`Models::withdraw`] follows
    /// if it is dropped.
    ///
    /// # Errors
    /// [`UpdateError`]; the model before works on.
    pub async fn prove(&mut self, digest: BundleDigest) -> Result<Proof, UpdateError> {
        // A power cut from here to the end of `answered` starts the old bundle, and the order is
        // carried out again from the complete one on the disk. An end of the agent counts against the
        // bundle: what takes the machine's memory may take the agent too.
        self.before = Some(self.trial.begin(digest));
        let proven = self.host.prove(digest, &self.bundles.folder(digest)).await;
        proven.map_err(|error| self.refused(digest, error))
    }

    /// The bundle that was being tried is not to be any more.
    pub fn withdraw(&mut self) {
        if let Some(before) = self.before.take() {
            self.trial.refused(before);
        }
    }

    fn refused(&mut self, digest: BundleDigest, error: NotSwapped) -> UpdateError {
        self.withdraw();
        if error.retry == Retry::Never {
            self.bundles.discard(digest);
        }
        UpdateError::Swap(error)
    }

    /// Steps 4 to 6 of [`super::bundles`], for a bundle that was proven.
    ///
    /// # Errors
    /// [`UpdateError`]; the model before works on.
    pub async fn install(&mut self, bundle: Bundle, proof: Proof) -> Result<(), UpdateError> {
        let digest = bundle.digest();
        let folder = self.bundles.folder(digest);
        if let Err(error) = self.host.swap(bundle, &folder, proof).await {
            return Err(self.refused(digest, error));
        }
        self.before = None;
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
        // A second time for a kept proof that was of no use and is gone by then.
        for _ in 0..2 {
            let bundle = match self.bundles.open(digest) {
                Ok(bundle) => bundle,
                Err(error) => {
                    let reason = chain(&error);
                    tracing::error!(bundle = %digest, reason, "an installed bundle cannot be used");
                    return false;
                }
            };
            let before = self.trial.begin(digest);
            let error = match self.put_to_work(bundle).await {
                Ok(()) => return true,
                Err(error) => error,
            };
            self.trial.refused(before);
            let reason = chain(&error);
            tracing::error!(bundle = %digest, reason, "an installed bundle cannot be used");
            if error.retry == Retry::Never {
                break;
            }
        }
        false
    }

    /// Puts an installed bundle to work: it has answered here before.
    async fn put_to_work(&self, bundle: Bundle) -> Result<(), NotSwapped> {
        let (digest, folder) = (bundle.digest(), self.bundles.folder(bundle.digest()));
        let proof = match self.host.prove(digest, &folder).await {
            Ok(proof) => proof,
            Err(error) if error.is_untried => {
                let reason = chain(&error);
                tracing::warn!(bundle = %digest, reason, "an installed bundle is loaded untried");
                Proof::unsafe_without()
            }
            Err(error) => return Err(error),
        };
        self.host.swap(bundle, &folder, proof).await
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
