//! The updater: takes verified orders, brings what they name to the disk, has it swapped in, and
//! says what became of it. Decisions are in [`super::order`]; this drives them.
//! An order for a model that ends the agent again and again ([`super::trial`]) is given up.
//!
//! It has a thread of its own with a small runtime, because it waits for the disk. A newer order
//! cancels the fetching and the trial of an older one, never a swap under way.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetloop_models::bundle::Bundle;
use fleetloop_protocol::backoff::Backoff;
use fleetloop_protocol::hub_keys::HubKeys;
use fleetloop_protocol::limits::shorten;
use fleetloop_protocol::state::{Assignment, Desired, Update};
use fleetloop_protocol::{BundleDigest, Generation};
use tokio::sync::{Notify, mpsc, watch};

use super::channel::Channel;
use super::error::{Retry, UpdateError};
use super::models::{ModelHost, Models};
use super::order::{Order, OrderStore, Received};
use crate::chain::chain;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::proof::Proof;
use crate::shutdown::{Shutdown, reached};

/// How often metadata, time and the hub's keys are refreshed when nothing asks for it.
const REFRESH_EVERY: Duration = Duration::from_secs(3600);
/// How often a new connection, or a message signed by an unknown key, may ask for a refresh.
const REFRESH_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// How often an order is tried when the hub or the disk seems at fault: about a minute.
const A_FEW_TIMES: u32 = 6;

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
    /// Asks for a refresh: a key is not known, or the hub was away and may have news.
    pub refresh: Arc<Notify>,
    /// What becomes of orders.
    pub progress: watch::Receiver<Progress>,
    /// The hub's keys, once they are known.
    pub keys: watch::Receiver<Option<Arc<HubKeys>>>,
}

/// The updater before it runs.
pub struct Driver {
    channel: Channel,
    ledger: Ledger,
    orders: mpsc::Receiver<Desired>,
    refresh: Arc<Notify>,
    refreshed: Option<Instant>,
    backoff: Backoff,
    tries: u32,
}

impl Driver {
    /// The updater of the device with that identity, on which the bundles answer that `running` says,
    /// and its ends.
    ///
    /// # Errors
    /// [`UpdateError`] when what it keeps on the disk is damaged.
    pub fn open(
        data_dir: &Path,
        identity: &Arc<Identity>,
        clock: &Clock,
        running: watch::Receiver<Option<BundleDigest>>,
    ) -> Result<(Self, Handle), UpdateError> {
        let channel = Channel::open(data_dir, identity, clock)?;
        let store = OrderStore::open(data_dir)?;
        let order = store.load()?;
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
    pub async fn run<M: ModelHost>(
        mut self,
        mut models: Models<M>,
        shutdown: watch::Receiver<Shutdown>,
    ) {
        models.boot().await;
        self.ledger.publish(None);
        self.serve(&mut models, shutdown).await;
        models.ended();
    }

    async fn serve<M: ModelHost>(
        &mut self,
        models: &mut Models<M>,
        mut shutdown: watch::Receiver<Shutdown>,
    ) {
        let mut next = tokio::time::Instant::now();
        loop {
            // Cancel-safe: `recv` and `notified` lose nothing, the moment of the next attempt
            // stays, the signal is only observed, and so is what is due.
            tokio::select! {
                biased;
                () = reached(&mut shutdown, Shutdown::Drain) => return,
                desired = self.orders.recv() => match desired {
                    None => return,
                    Some(desired) => {
                        if !self.ledger.take(desired, models) {
                            continue;
                        }
                        self.begin_anew();
                    }
                },
                due = models.due() => {
                    if models.attend(due).await {
                        self.ledger.publish(None);
                    }
                    continue;
                }
                () = self.refresh.notified() => {
                    if !self.may_refresh() {
                        if let Some(soonest) = self.soonest_refresh() {
                            next = next.min(soonest);
                        }
                        continue;
                    }
                }
                () = tokio::time::sleep_until(next) => {}
            }
            let Some(wait) = self.work(models, &mut shutdown).await else { return };
            next = tokio::time::Instant::now() + wait;
        }
    }

    /// One attempt; how long to wait before the next, or none when the signal came.
    async fn work<M: ModelHost>(
        &mut self,
        models: &mut Models<M>,
        shutdown: &mut watch::Receiver<Shutdown>,
    ) -> Option<Duration> {
        let to_do = self.ledger.to_do();
        if let Some(assignment) = &to_do
            && let Some(reason) = models.loops(assignment.bundle)
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
                        if self.ledger.take(desired, models) {
                            break None;
                        }
                    }
                    due = models.due() => if models.attend(due).await {
                        self.ledger.publish(None);
                    },
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
                if let Some(bundle) = bundle {
                    match self.proven(models, bundle.digest(), shutdown).await {
                        Next::Go(proof) => {
                            if let Err(error) = models.install(bundle, proof).await {
                                return Some(self.failed(&error, true));
                            }
                        }
                        Next::Failed(error) => return Some(self.failed(&error, true)),
                        Next::NewOrder(desired) => {
                            tracing::info!("another order ends the trial of a model");
                            self.ledger.take(desired, models);
                            self.begin_anew();
                            return Some(Duration::ZERO);
                        }
                        Next::Stop => return None,
                    }
                }
                self.begin_anew();
                self.ledger.publish(None);
                Some(REFRESH_EVERY)
            }
        }
    }

    /// Tries a bundle until there is a verdict, another order or the signal.
    async fn proven<M: ModelHost>(
        &mut self,
        models: &mut Models<M>,
        bundle: BundleDigest,
        shutdown: &mut watch::Receiver<Shutdown>,
    ) -> Next {
        let next = {
            let mut proving = pin!(models.prove(bundle));
            loop {
                // Cancel-safe: dropping `proving` ends the trial, and `withdraw` follows.
                tokio::select! {
                    biased;
                    () = reached(shutdown, Shutdown::Drain) => break Next::Stop,
                    Some(desired) = self.orders.recv() => if self.ledger.is_new(&desired) {
                        break Next::NewOrder(desired);
                    },
                    proven = &mut proving => break match proven {
                        Ok(proof) => Next::Go(proof),
                        Err(error) => Next::Failed(error),
                    },
                }
            }
        };
        if matches!(next, Next::NewOrder(_) | Next::Stop) {
            models.withdraw();
        }
        next
    }

    /// Whether a refresh that was asked for is made now. While attempts fail their back-off alone says
    /// when: each answer of a hub whose keys are not known asks for one.
    fn may_refresh(&self) -> bool {
        self.tries == 0 && self.refreshed.is_none_or(|at| at.elapsed() >= REFRESH_AT_MOST_EVERY)
    }

    /// When a refresh that was asked for too soon is made; none while attempts fail.
    fn soonest_refresh(&self) -> Option<tokio::time::Instant> {
        let at = self.refreshed.filter(|_| self.tries == 0)? + REFRESH_AT_MOST_EVERY;
        Some(tokio::time::Instant::from_std(at))
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
}

/// What ended the trial of a bundle.
enum Next {
    /// It is good.
    Go(Proof),
    /// It is not.
    Failed(UpdateError),
    /// The hub wants something else.
    NewOrder(Desired),
    /// The agent stops.
    Stop,
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

    fn is_new(&self, desired: &Desired) -> bool {
        matches!(self.order.receive(desired.clone()), Received::New(_))
    }

    /// Whether `desired` is a new order; it is then on the disk.
    fn take<M: ModelHost>(&mut self, desired: Desired, models: &mut Models<M>) -> bool {
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
                    models.forgive(assignment.bundle);
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
