//! The updater: takes verified orders, brings what they name to the disk, has it swapped in, and
//! says what became of it. Decisions are in [`super::order`]; this drives them.
//!
//! A model that ends the agent again and again ([`super::trial`]) is not put to work: the one before
//! it is, and the order that names it is given up. Where there is no other it waits for
//! [`PAUSE`], so that the link has time for another order.
//!
//! It has a thread of its own with a small runtime, because it waits for the disk. A newer order
//! cancels the fetching of an older one, never a swap under way.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetloop_models::bundle::Bundle;
use fleetloop_protocol::hub_keys::HubKeys;
use fleetloop_protocol::limits::shorten;
use fleetloop_protocol::state::{Assignment, Desired, Update};
use fleetloop_protocol::{BundleDigest, Generation};
use tokio::sync::{Notify, mpsc, watch};

use super::bundles::{Bundles, Start};
use super::channel::Channel;
use super::error::{Retry, UpdateError};
use super::order::{Order, OrderStore, Received};
use super::trial::{Trial, boot_id};
use crate::chain::chain;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::infer::{Inference, SwapError};
use crate::link::backoff::Backoff;
use crate::shutdown::{Shutdown, reached};

/// How often metadata, time and the hub's keys are refreshed when nothing asks for it.
const REFRESH_EVERY: Duration = Duration::from_secs(3600);
/// How often a message signed by an unknown key may ask for a refresh.
const REFRESH_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// How often an order is tried when the hub or the disk seems at fault: about a minute.
const A_FEW_TIMES: u32 = 6;

/// How long a model that ends the agent, and has no other before it, is let rest at start.
pub const PAUSE: Duration = Duration::from_secs(10 * 60);

/// Whatever answers frames with a model.
pub trait ModelHost: Send + Sync + 'static {
    /// Swaps `bundle` in, by way of the optimised graph in `kept`. Success means that it reproduced its golden cases and has answered;
    /// otherwise the one before answers on.
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

/// What the updater says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The generation of the last order it persisted.
    pub generation: Generation,
    /// What becomes of it.
    pub update: Update,
    /// What last went wrong, until it went well.
    pub problem: Option<String>,
}

/// The updater's ends.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Verified orders go in here. Full means that the hub's next one will do.
    pub orders: mpsc::Sender<Desired>,
    /// Asks for a refresh, for instance because a key is not known.
    pub refresh: Arc<Notify>,
    /// What becomes of orders.
    pub progress: watch::Receiver<Progress>,
    /// The hub's keys, once they are known.
    pub keys: watch::Receiver<Option<Arc<HubKeys>>>,
}

/// The updater before it runs.
pub struct Driver<M> {
    channel: Channel,
    bundles: Bundles,
    host: M,
    ledger: Ledger,
    trial: Trial,
    /// The model that rests, and until when.
    resting: Option<(BundleDigest, tokio::time::Instant)>,
    orders: mpsc::Receiver<Desired>,
    refresh: Arc<Notify>,
    refreshed: Option<Instant>,
    backoff: Backoff,
    tries: u32,
}

impl<M: ModelHost> Driver<M> {
    /// The updater of the device with that identity, and its ends.
    ///
    /// # Errors
    /// [`UpdateError`] when what it keeps on the disk is damaged.
    pub fn open(
        data_dir: &Path,
        identity: &Identity,
        clock: &Clock,
        host: M,
    ) -> Result<(Self, Handle), UpdateError> {
        let channel = Channel::open(data_dir, identity, clock)?;
        let store = OrderStore::open(data_dir)?;
        let order = store.load()?;
        let running = host.running();
        let progress = watch::Sender::new(Progress {
            generation: order.generation,
            update: order.update(*running.borrow()),
            problem: None,
        });
        // Orders replace one another; four cover a burst of corrections.
        let (sender, orders) = mpsc::channel(4);
        let refresh = Arc::new(Notify::new());
        let handle = Handle {
            orders: sender,
            refresh: Arc::clone(&refresh),
            progress: progress.subscribe(),
            keys: channel.keys(),
        };
        let driver = Self {
            channel,
            bundles: Bundles::new(data_dir),
            host,
            trial: Trial::open(data_dir, boot_id(), running.clone())?,
            resting: None,
            ledger: Ledger { store, order, running, progress },
            orders,
            refresh,
            refreshed: None,
            backoff: Backoff::default(),
            tries: 0,
        };
        Ok((driver, handle))
    }

    /// Works until the signal says otherwise. First the installed bundle is swapped in, whether
    /// the hub can be reached or not.
    pub async fn run(mut self, shutdown: watch::Receiver<Shutdown>) {
        self.boot().await;
        self.ledger.publish(None);
        self.serve(shutdown).await;
        self.trial.ended();
    }

    async fn serve(&mut self, mut shutdown: watch::Receiver<Shutdown>) {
        let mut next = tokio::time::Instant::now();
        loop {
            // Cancel-safe: `recv` and `notified` lose nothing, the moment of the next attempt
            // stays, and the signal is only observed.
            tokio::select! {
                biased;
                () = reached(&mut shutdown, Shutdown::Drain) => return,
                desired = self.orders.recv() => match desired {
                    None => return,
                    Some(desired) => {
                        if !self.ledger.take(desired, &mut self.trial) {
                            continue;
                        }
                        self.begin_anew();
                    }
                },
                () = self.trial.over() => {
                    self.trial.passed();
                    continue;
                }
                digest = rested(self.resting) => {
                    self.resting = None;
                    if self.ledger.running().is_none() {
                        self.boot_one(digest).await;
                        self.ledger.publish(None);
                    }
                    continue;
                }
                () = self.refresh.notified() => {
                    if self.refreshed.is_some_and(|at| at.elapsed() < REFRESH_AT_MOST_EVERY) {
                        continue;
                    }
                }
                () = tokio::time::sleep_until(next) => {}
            }
            let Some(wait) = self.work(&mut shutdown).await else { return };
            next = tokio::time::Instant::now() + wait;
        }
    }

    /// One attempt; how long to wait before the next, or none when the signal came.
    async fn work(&mut self, shutdown: &mut watch::Receiver<Shutdown>) -> Option<Duration> {
        let to_do = self.ledger.to_do();
        if let Some(assignment) = &to_do
            && let Some(reason) = self.trial.loops(assignment.bundle)
        {
            tracing::error!(bundle = %assignment.bundle, reason, "an order is given up");
            self.ledger.give_up(&reason);
            return Some(REFRESH_EVERY);
        }
        let fetched = {
            let mut fetching = pin!(fetch(&mut self.channel, to_do.as_ref()));
            loop {
                // Cancel-safe: dropping `fetching` leaves its parts on the disk, see there.
                tokio::select! {
                    biased;
                    () = reached(shutdown, Shutdown::Drain) => return None,
                    Some(desired) = self.orders.recv() => {
                        if self.ledger.take(desired, &mut self.trial) {
                            break None;
                        }
                    }
                    () = self.trial.over() => self.trial.passed(),
                    result = &mut fetching => break Some(result),
                }
            }
        };
        match fetched {
            None => {
                self.begin_anew();
                Some(Duration::ZERO)
            }
            Some(Err(error)) => Some(self.failed(&error, to_do.is_some())),
            Some(Ok(bundle)) => {
                self.refreshed = Some(Instant::now());
                let installed = match bundle {
                    Some(bundle) => self.install(bundle).await,
                    None => Ok(()),
                };
                if let Err(error) = installed {
                    return Some(self.failed(&error, true));
                }
                self.begin_anew();
                self.ledger.publish(None);
                Some(REFRESH_EVERY)
            }
        }
    }

    fn begin_anew(&mut self) {
        self.backoff.reset();
        self.tries = 0;
    }

    pub(super) fn failed(&mut self, error: &UpdateError, for_an_order: bool) -> Duration {
        let reason = chain(error);
        self.tries += 1;
        let give_up = match error.retry() {
            Retry::Always => false,
            Retry::AFewTimes => self.tries >= A_FEW_TIMES,
            Retry::Never => true,
        };
        tracing::warn!(reason, give_up = give_up && for_an_order, "cannot update");
        if give_up && for_an_order {
            self.ledger.give_up(&reason);
            self.begin_anew();
            return REFRESH_EVERY;
        }
        self.ledger.publish(Some(reason));
        self.backoff.next_wait()
    }

    /// Steps 4 to 6 of [`super::bundles`].
    async fn install(&mut self, bundle: Bundle) -> Result<(), UpdateError> {
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
    async fn boot(&mut self) {
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

async fn fetch(
    channel: &mut Channel,
    to_do: Option<&Assignment>,
) -> Result<Option<Bundle>, UpdateError> {
    match to_do {
        Some(assignment) => channel.obtain(assignment).await.map(Some),
        None => channel.refresh().await.map(|_| None),
    }
}

/// The order, on the disk and as reported.
#[derive(Debug)]
struct Ledger {
    store: OrderStore,
    order: Order,
    running: watch::Receiver<Option<BundleDigest>>,
    progress: watch::Sender<Progress>,
}

impl Ledger {
    fn running(&self) -> Option<BundleDigest> {
        *self.running.borrow()
    }

    fn to_do(&self) -> Option<Assignment> {
        self.order.to_do(self.running()).cloned()
    }

    /// Whether `desired` is a new order; it is then on the disk.
    fn take(&mut self, desired: Desired, trial: &mut Trial) -> bool {
        let generation = desired.generation.0;
        match self.order.receive(desired) {
            Received::Stale => {
                tracing::warn!(
                    generation,
                    known = self.order.generation.0,
                    "an older order is ignored"
                );
                false
            }
            Received::Known => false,
            Received::New(order) => {
                // First, so that a power cut before the next write tries nothing under the older
                // order and everything under this one.
                if let Some(assignment) = &order.assignment {
                    trial.forgive(assignment.bundle);
                }
                // A power cut before this leaves the older order; the hub sends this one again.
                if let Err(error) = self.store.save(&order) {
                    let reason = chain(&error);
                    tracing::error!(
                        generation,
                        reason,
                        "an order cannot be kept, so it is not followed"
                    );
                    self.publish(Some(reason));
                    return false;
                }
                tracing::info!(generation, "a new order");
                self.order = order;
                self.publish(None);
                true
            }
        }
    }

    fn give_up(&mut self, reason: &str) {
        self.order.given_up = Some(shorten(reason));
        // A power cut before this tries the order once more and comes to the same end.
        if let Err(error) = self.store.save(&self.order) {
            tracing::error!(reason = chain(&error), "cannot keep that an order was given up");
        }
        self.publish(Some(reason.to_owned()));
    }

    fn publish(&self, problem: Option<String>) {
        let next = Progress {
            generation: self.order.generation,
            update: self.order.update(self.running()),
            problem,
        };
        self.progress.send_if_modified(|now| {
            let changed = *now != next;
            *now = next;
            changed
        });
    }
}
