//! The worker: takes jobs from a hub, does them, brings the results back.
//!
//! lease → download (by digest, into a cache) → [`crate::job::run`] or [`crate::job::evaluate`] → upload
//! (by digest) → done.
//! While a job is under way its lease is renewed three times as often as it ends. A worker may die
//! at any moment: the lease ends, the job is leased again, and because a job gives the same bytes
//! every time, nothing that was uploaded before is wrong. A worker that gets the job again goes on
//! from its checkpoint, beside the cache; there is one, and the next job's takes its place. A worker whose lease was given to another
//! stops at once.
//!
//! A job that cannot be done (bad data, a graph that cannot be trained) is reported as failed. What
//! is wrong with this machine alone, its cache or its checkpoint, leaves the job for another attempt.
//! A hub that cannot be reached is tried again, with growing pauses: between jobs, and in the middle of
//! one for as long as its lease is not another's ([`patience`]).

mod client;
mod lease;
mod patience;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::tensor::Device;
use fleetloop_models::bundle::{Bundle, Files, Manifest};
use fleetloop_models::session::Runtime;
use fleetloop_protocol::api::ApiAccess;
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use fleetloop_protocol::api::jobs::{Base as WireBase, Done, JobKind, Lease};
use fleetloop_protocol::backoff::Backoff;
use fleetloop_protocol::limits::PAYLOAD_BYTES;
use fleetloop_protocol::{BundleDigest, Digest};
use thiserror::Error;

pub use client::{Hub, HubError};
use lease::Renewing;
use patience::Patience;

use crate::blobs::{BlobError, Blobs};
use crate::chain::chain;
use crate::dataset::{self, DATASET_BYTES, DatasetError};
use crate::job::{self, Base, Event, JobError, Order, Product, Tools};
use crate::memory;
use crate::starter::StarterError;
use crate::train::checkpoint::{Foreign, Place};
use crate::train::{Recipe, RecipeError};

/// How often an idle worker asks for a job.
const POLL: Duration = Duration::from_secs(1);
/// The longest pause while the hub cannot be reached, or jobs are left one after another.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Payloads fetched at the same time: enough to hide the round trip, few enough for a small hub.
const DOWNLOADS: usize = 8;
/// The largest artefact that is fetched, in bytes.
const ARTEFACT_BYTES: usize = fleetloop_models::bundle::FILE_BYTES as usize;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The hub.
    pub access: ApiAccess,
    /// The file that `access` came from: it is read again when the token no longer works.
    pub access_file: Option<PathBuf>,
    /// The worker's name, for people.
    pub name: String,
    /// Where downloads are kept.
    pub cache: PathBuf,
    /// The most that is kept there, in bytes; the oldest goes first.
    pub cache_limit_bytes: u64,
    /// Threads for computing.
    pub threads: usize,
    /// The least time between two checkpoints of a job.
    pub checkpoint_every: Duration,
    /// Ends after the first job that was done or failed.
    pub once: bool,
}

impl Settings {
    /// Where a job under way is kept: beside the cache, which holds files by digest only.
    fn checkpoints(&self) -> Place {
        let mut folder = self.cache.clone().into_os_string();
        folder.push(".checkpoint");
        Place { folder: folder.into(), every: self.checkpoint_every, foreign: Foreign::Replace }
    }
}

/// Why a worker does not go on with a job.
#[derive(Debug, Error)]
pub enum WorkError {
    /// The hub refused, or could not be reached.
    #[error("cannot go on with the job")]
    Hub(#[from] HubError),
    /// The cache cannot be used.
    #[error("cannot use the cache")]
    Cache(#[from] BlobError),
    /// The job itself cannot be done.
    #[error("cannot do the job")]
    Job(#[from] JobError),
    /// The recipe is not one.
    #[error("cannot use the job's recipe")]
    Recipe(#[from] RecipeError),
    /// The dataset is not one.
    #[error("cannot use the job's dataset")]
    Dataset(#[from] DatasetError),
    /// The base is not one.
    #[error("cannot use the job's base: {0}")]
    Base(String),
    /// The starter's kind is not known.
    #[error("cannot use the job's base")]
    Starter(#[from] StarterError),
    /// The run record cannot be written down.
    #[error("cannot write the run record")]
    Record(#[source] serde_json::Error),
    /// Someone asked it to stop.
    #[error("the job was cancelled")]
    Cancelled,
    /// The thread that computed came to an unexpected end.
    #[error("the job's thread ended unexpectedly; see the log")]
    Panicked,
}

impl WorkError {
    /// Whether doing the job again would end the same way.
    fn is_permanent(&self) -> bool {
        match self {
            Self::Hub(e) => e.is_permanent(),
            Self::Cache(_) | Self::Cancelled => false,
            Self::Job(e) => e.is_permanent(),
            _ => true,
        }
    }
}

/// Works until `stop` is set.
///
/// # Errors
/// The cache cannot be opened, or the hub's address or certificate is unusable.
pub async fn work(
    settings: Settings,
    runtime: Runtime,
    stop: Arc<AtomicBool>,
) -> Result<(), WorkError> {
    let worker = Worker {
        hub: Hub::new(&settings.access)?.following(settings.access_file.clone()),
        cache: Blobs::open(&settings.cache)?,
        settings,
        runtime,
        stop,
    };
    let mut backoff = Backoff::new(POLL, LONGEST_PAUSE);
    while !worker.stopping() {
        let pause = match worker.hub.lease(&worker.settings.name).await {
            Ok(Some(lease)) => {
                let ended = worker.take(lease).await;
                memory::give_back();
                if worker.settings.once {
                    break;
                }
                match ended {
                    Ended::Over => {
                        backoff.reset();
                        continue;
                    }
                    // This machine's fault: the next job would meet the same.
                    Ended::Left => backoff.next_wait(),
                }
            }
            Ok(None) => {
                backoff.reset();
                POLL
            }
            Err(error) => {
                let pause = backoff.next_wait();
                tracing::warn!(error = %chain(&error), pause_s = pause.as_secs(), "no answer from the hub");
                pause
            }
        };
        worker.rest(pause).await;
    }
    Ok(())
}

/// How a job came to its end at this worker.
enum Ended {
    /// Done, failed for good, or another's.
    Over,
    /// Left for another attempt.
    Left,
}

struct Worker {
    settings: Settings,
    hub: Hub,
    cache: Blobs,
    runtime: Runtime,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, in short pieces so that stopping is noticed.
    async fn rest(&self, pause: Duration) {
        let piece = Duration::from_millis(200);
        let mut left = pause;
        while !left.is_zero() && !self.stopping() {
            tokio::time::sleep(piece.min(left)).await;
            left = left.saturating_sub(piece);
        }
    }

    /// Does one job and tells the hub how it ended.
    async fn take(&self, lease: Lease) -> Ended {
        let job = lease.job.0;
        let (spec, kind) = (&lease.spec, lease.spec.kind);
        tracing::info!(job, ?kind, model = spec.model, version = spec.version, "job leased");
        let renewing = Renewing::start(self.hub.clone(), &lease, Arc::clone(&self.stop));
        let result = self.attempt(&lease, &renewing).await;
        let over = match &result {
            Ok(_) => true,
            Err(error) => error.is_permanent() && !renewing.is_lost() && !self.stopping(),
        };
        let patience = renewing.patience();
        let ended = match result {
            Ok(done) => patience
                .ask(|| self.hub.done(lease.job, &done))
                .await
                .map(|()| tracing::info!(job, bundle = %done.bundle, "job done")),
            Err(_) if renewing.is_lost() => {
                tracing::warn!(job, "the lease was given to another worker");
                Ok(())
            }
            Err(error) if over => {
                tracing::error!(job, error = %chain(&error), "job failed");
                patience.ask(|| self.hub.failed(&lease, chain(&error))).await
            }
            Err(error) => {
                tracing::warn!(job, error = %chain(&error), "job left; its lease will end");
                Ok(())
            }
        };
        let left = !over && !renewing.is_lost();
        renewing.stop().await;
        match ended {
            Err(error) => tracing::warn!(job, error = %chain(&error), "the hub was not told"),
            Ok(()) if over => {
                if let Err(error) = self.settings.checkpoints().remove() {
                    tracing::warn!(job, error = %chain(&error), "checkpoint not removed");
                }
            }
            Ok(()) => {}
        }
        if let Err(error) = self.cache.shrink(self.settings.cache_limit_bytes) {
            tracing::warn!(error = %chain(&error), "cache not tidied");
        }
        if left { Ended::Left } else { Ended::Over }
    }

    async fn attempt(&self, lease: &Lease, renewing: &Renewing) -> Result<Done, WorkError> {
        match lease.spec.kind {
            JobKind::Train => self.train(lease, renewing).await,
            JobKind::Evaluate => self.evaluate(lease, renewing).await,
        }
    }

    async fn train(&self, lease: &Lease, renewing: &Renewing) -> Result<Done, WorkError> {
        let order = self.order(lease, renewing).await?;
        let place = self.settings.checkpoints();
        let product = self
            .compute(renewing, Some(place), move |cache, tools, watch| {
                job::run(&order, cache, tools, watch)
            })
            .await?;
        self.upload(lease, product, renewing).await
    }

    /// Judges a bundle that there is by the dataset's gate items.
    async fn evaluate(&self, lease: &Lease, renewing: &Renewing) -> Result<Done, WorkError> {
        let WireBase::Bundle { bundle } = lease.spec.base else {
            return Err(WorkError::Base("an evaluation is of a bundle".into()));
        };
        let bundle = self.bundle(bundle, &renewing.patience()).await?;
        let wanted = |item: &Item| item.split == Split::Gate;
        let Downloaded { dataset, digest, removed } =
            self.dataset(lease.spec.dataset, wanted, renewing).await?;
        let (report, left_out) = self
            .compute(renewing, None, move |cache, tools, watch| {
                job::evaluate(&bundle, (&dataset, digest), cache, &removed, tools, watch)
            })
            .await?;
        Ok(Done {
            lease: lease.lease.clone(),
            bundle: report.bundle,
            run_record: None,
            report,
            base_report: None,
            left_out,
        })
    }

    /// Runs `job` on a thread of its own, and tells the hub how far it is.
    async fn compute<T: Send + 'static>(
        &self,
        renewing: &Renewing,
        checkpoints: Option<Place>,
        job: impl FnOnce(&Blobs, &Tools<'_>, &mut dyn FnMut(Event)) -> Result<T, JobError>
        + Send
        + 'static,
    ) -> Result<T, WorkError> {
        let (runtime, cache, threads) =
            (self.runtime.clone(), self.cache.clone(), self.settings.threads);
        let (progress, cancel) = (renewing.progress(), renewing.cancel());
        let computing = tokio::task::spawn_blocking(move || {
            let tools = Tools {
                runtime: &runtime,
                device: Device::default(),
                threads,
                cancel: &cancel,
                checkpoints: checkpoints.as_ref(),
            };
            job(&cache, &tools, &mut |event| {
                if let Event::LeftOut(item) = &event {
                    tracing::warn!(sample = %item.sample, reason = item.reason, "left out of the job");
                }
                progress.set(&event);
            })
        });
        Ok(computing.await.map_err(|_| WorkError::Panicked)??)
    }

    async fn order(&self, lease: &Lease, renewing: &Renewing) -> Result<Order, WorkError> {
        let spec = &lease.spec;
        let recipe = Recipe::parse(&spec.recipe, &defaults(&spec.base))?;
        let patience = renewing.patience();
        let base = match &spec.base {
            WireBase::Starter { kind, input } => {
                Base::Starter { kind: kind.parse()?, input: input.clone() }
            }
            WireBase::Bundle { bundle } => {
                Base::Bundle(Box::new(self.bundle(*bundle, &patience).await?))
            }
        };
        let Downloaded { dataset, digest: dataset_digest, removed } =
            self.dataset(spec.dataset, |_| true, renewing).await?;
        Ok(Order {
            name: spec.model.clone(),
            version: spec.version,
            base,
            dataset,
            dataset_digest,
            recipe,
            seed: spec.seed,
            removed,
        })
    }

    /// A dataset, and into the cache the payloads of those items that are wanted.
    async fn dataset(
        &self,
        digest: Digest,
        wanted: impl Fn(&Item) -> bool,
        renewing: &Renewing,
    ) -> Result<Downloaded, WorkError> {
        let patience = renewing.patience();
        let bytes = self.fetch(Kind::Dataset, digest, &patience).await?;
        let (dataset, digest) = dataset::parse(&bytes)?;
        let mut removed: BTreeSet<Digest> =
            patience.ask(|| self.hub.removed(digest)).await?.into_iter().collect();
        let is_there = |item: &&Item| !removed.contains(&item.sample);
        let there: BTreeSet<Digest> =
            dataset.items.iter().filter(is_there).map(|item| item.payload).collect();
        // What the hub erased is not kept here either.
        for item in dataset.items.iter().filter(|item| !there.contains(&item.payload)) {
            self.cache.remove(item.payload)?;
        }
        let payloads: BTreeSet<Digest> = dataset
            .items
            .iter()
            .filter(|item| is_there(item) && wanted(item))
            .map(|item| item.payload)
            .collect();
        let wanted: Vec<Digest> =
            payloads.into_iter().filter(|digest| !self.cache.has(*digest)).collect();
        let total = wanted.len();
        let mut gone = BTreeSet::new();
        let mut under_way = tokio::task::JoinSet::new();
        let mut fetched = 0;
        let mut wanted = wanted.into_iter();
        loop {
            while under_way.len() < DOWNLOADS
                && let Some(digest) = wanted.next()
            {
                let (hub, cache, patience) =
                    (self.hub.clone(), self.cache.clone(), patience.clone());
                under_way.spawn(async move {
                    let payload = patience.ask(|| hub.payload(digest, PAYLOAD_BYTES)).await?;
                    let gone = payload.is_none().then_some(digest);
                    payload.map(|bytes| cache.put(&bytes)).transpose()?;
                    Ok::<_, WorkError>(gone)
                });
            }
            let Some(ended) = under_way.join_next().await else { break };
            gone.extend(ended.map_err(|_| WorkError::Panicked)??);
            fetched += 1;
            renewing.progress().phase("download", fetched as f32 / total as f32);
            if renewing.is_cancelled() {
                return Err(WorkError::Cancelled);
            }
        }
        let items = dataset.items.iter().filter(|item| gone.contains(&item.payload));
        removed.extend(items.map(|item| item.sample));
        Ok(Downloaded { dataset, digest, removed })
    }

    /// A file from the cache, or from the hub through the cache.
    async fn fetch(
        &self,
        kind: Kind,
        digest: Digest,
        patience: &Patience,
    ) -> Result<Vec<u8>, WorkError> {
        match self.cache.get(digest) {
            Ok(bytes) => return Ok(bytes),
            Err(BlobError::Missing { .. } | BlobError::Damaged { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        let bytes = match kind {
            Kind::Dataset => patience.ask(|| self.hub.dataset(digest, DATASET_BYTES)).await?,
            Kind::Artefact => patience.ask(|| self.hub.artefact(digest, ARTEFACT_BYTES)).await?,
        };
        self.cache.put(&bytes)?;
        Ok(bytes)
    }

    async fn bundle(&self, digest: BundleDigest, patience: &Patience) -> Result<Bundle, WorkError> {
        let unusable = |e: fleetloop_models::bundle::BundleError| WorkError::Base(e.to_string());
        let manifest_bytes = self.fetch(Kind::Artefact, digest.0, patience).await?;
        let manifest = Manifest::parse(&manifest_bytes).map_err(unusable)?;
        let mut files = Files::new();
        for entry in &manifest.files {
            files.insert(entry.role, self.fetch(Kind::Artefact, entry.sha256, patience).await?);
        }
        Bundle::from_parts(manifest_bytes, files).map_err(unusable)
    }

    /// The manifest goes last: whoever sees it finds the files it names.
    async fn upload(
        &self,
        lease: &Lease,
        product: Product,
        renewing: &Renewing,
    ) -> Result<Done, WorkError> {
        let patience = renewing.patience();
        let record = serde_json::to_vec_pretty(&product.record).map_err(WorkError::Record)?;
        let mut files: Vec<&[u8]> = vec![&record];
        files.extend(product.bundle.files().into_iter().map(|(_, bytes)| bytes));
        for (place, bytes) in files.iter().enumerate() {
            renewing.progress().phase("upload", place as f32 / files.len() as f32);
            let digest = Digest::of(bytes);
            patience.ask(|| self.hub.put_artefact(digest, bytes.to_vec())).await?;
        }
        Ok(Done {
            lease: lease.lease.clone(),
            bundle: product.bundle.digest(),
            run_record: Some(Digest::of(&record)),
            report: product.report,
            base_report: product.base_report,
            left_out: product.record.reproducible.left_out,
        })
    }
}

/// A dataset whose payloads are in the cache.
struct Downloaded {
    dataset: Dataset,
    digest: Digest,
    /// Its samples that were removed at the hub.
    removed: BTreeSet<Digest>,
}

/// A first model and a retrained one have other defaults.
fn defaults(base: &WireBase) -> Recipe {
    match base {
        WireBase::Starter { .. } => Recipe::starter(),
        WireBase::Bundle { .. } => Recipe::retraining(),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Dataset,
    Artefact,
}

/// The phase and fraction of an event, as the hub shows them.
fn phase(event: &Event) -> (&'static str, f32, Option<f32>) {
    match event {
        Event::Prepare | Event::LeftOut(_) => ("train", 0.0, None),
        Event::Train(p) => ("train", p.step as f32 / p.steps.max(1) as f32, Some(p.loss)),
        Event::Evaluate(done, total) => ("evaluate", *done as f32 / (*total).max(1) as f32, None),
    }
}
