//! The model at work: one thread owns the session and answers frames; a new model takes its place
//! between two frames.
//!
//! A swap, and what each step leaves if it fails (the old model answers on in every case):
//! 1. a child process tries the bundle ([`crate::proof`]), and a loader thread opens a session of what
//!    was proven, checks the golden cases and warms it: refused, nothing was touched;
//! 2. it hands the session to the worker, which tries it on the next frame: if it gives no answer,
//!    the same frame goes to the old session, the new one is dropped and the swap fails;
//! 3. it answered: it is the model in use, [`Inference::running`] says so, and the old session is
//!    dropped on the loader's thread.
//!
//! No frame is lost on the way: the worker never waits for the loader. One swap at a time.
//!
//! With no old model the queue opens at step 2. If the first answer fails, it shuts again and the
//! swap fails; if no frame comes in time, the swap succeeds all the same, for there is nothing to go
//! back to, and the new model answers whenever a frame comes.

mod loader;
pub mod optimised;
mod overdue;
mod recent;
mod trying;
mod worker;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use fleetloop_models::bundle::Bundle;
use fleetloop_models::golden::{GoldenError, GoldenReport};
use fleetloop_models::postprocess::Classification;
use fleetloop_models::reference::Reference;
use fleetloop_models::session::{Runtime, SessionError, Threads};
use fleetloop_protocol::BundleDigest;
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};

use crate::clock::Clock;
use crate::frames::{Arrived, FrameQueue};
use crate::proof::Proof;
use crate::supervise::Pulse;
use crate::{priority, threads};

use optimised::Kept;
use overdue::Overdue;
use recent::Recent;

pub use loader::open;
pub use overdue::Hung;
pub use trying::{Proving, Trying};

/// How long a swap waits for a frame of a source that gives `rate_hz` a second: a minute at least,
/// and three of its periods.
pub fn confirm_within(rate_hz: f64) -> Duration {
    Duration::from_secs(60).max(Duration::from_secs_f64(3.0 / rate_hz))
}

/// What the worker hands on for each answered frame. Called on the worker's thread: it must not
/// block.
pub trait Sink: Send {
    /// `frame` was answered.
    fn answered(&mut self, answer: Answer);
    /// `number` could not be answered by a model that had answered before.
    fn failed(&mut self, number: u64);
}

/// A frame and what the model made of it.
#[derive(Debug)]
pub struct Answer {
    /// The frame.
    pub frame: Box<Arrived>,
    /// Which model answered.
    pub model: Arc<ModelInfo>,
    /// What it said.
    pub classification: Classification,
    /// From the moment the frame was due to the answer.
    pub latency: Duration,
}

/// A model in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its bundle's digest.
    pub digest: BundleDigest,
    /// The manifest's name.
    pub name: String,
    /// The manifest's version.
    pub version: u32,
    /// What its classes are called.
    pub labels: Vec<String>,
    /// What its answers looked like where it was made; none when its bundle does not say.
    pub reference: Option<Reference>,
}

/// Why a bundle does not answer.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The child that tried it refused it.
    #[error("cannot use bundle {bundle}: {reason}; the model before answers on")]
    Refused {
        /// Which.
        bundle: BundleDigest,
        /// In words.
        reason: String,
    },
    /// No child could try it.
    #[error("cannot try bundle {bundle} in a child process: {reason}; the model before answers on")]
    Untried {
        /// Which.
        bundle: BundleDigest,
        /// In words.
        reason: String,
    },
    /// The kept proof is of no use, and was removed.
    #[error("the kept proof of bundle {bundle} is of no use and was removed; it is tried again")]
    Stale {
        /// Which.
        bundle: BundleDigest,
        /// Why.
        #[source]
        source: Box<SwapError>,
    },
    /// The model cannot be loaded.
    #[error("cannot load bundle {bundle}; the model before answers on")]
    Session {
        /// Which.
        bundle: BundleDigest,
        /// Why.
        #[source]
        source: SessionError,
    },
    /// It does not reproduce its golden cases here.
    #[error("cannot use bundle {bundle}: it fails its golden cases; the model before answers on")]
    Golden {
        /// Which.
        bundle: BundleDigest,
        /// Why.
        #[source]
        source: GoldenError,
    },
    /// Its first inference on a real frame failed.
    #[error(
        "cannot use bundle {bundle}: it cannot answer a frame of this source; the model before \
         answers on; compare the bundle's input with [source]"
    )]
    FirstAnswer {
        /// Which.
        bundle: BundleDigest,
        /// What the runtime said; none when the answer was not a number.
        #[source]
        source: Option<SessionError>,
    },
    /// No frame came to try it on.
    #[error(
        "cannot prove bundle {bundle}: no frame came within {waited_s} s; the model before stays; \
         check [source]"
    )]
    NoFrame {
        /// Which.
        bundle: BundleDigest,
        /// How long it waited, in seconds.
        waited_s: u64,
    },
    /// The agent is stopping.
    #[error("cannot swap in bundle {bundle}: the agent is stopping")]
    Stopping {
        /// Which.
        bundle: BundleDigest,
    },
    /// The system has no thread to give.
    #[error("cannot start a thread for bundle {bundle}")]
    Thread {
        /// Which.
        bundle: BundleDigest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A session that reproduced its golden cases and is warm.
pub struct Proven {
    session: fleetloop_models::session::Session,
    info: Arc<ModelInfo>,
    report: GoldenReport,
}

impl Proven {
    /// Which model it is.
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    /// How close it came to its golden cases.
    pub fn report(&self) -> GoldenReport {
        self.report
    }

    /// The session, for measuring.
    pub fn session(&mut self) -> &mut fleetloop_models::session::Session {
        &mut self.session
    }
}

/// A session on its way into use.
struct Candidate {
    proven: Box<Proven>,
    /// Told once: it answered, or why not.
    verdict: oneshot::Sender<Result<(), SwapError>>,
    /// Takes what is no longer used, to be dropped elsewhere.
    discard: std_mpsc::SyncSender<Box<Proven>>,
}

/// A handle to the model at work. All clones are one.
#[derive(Clone)]
pub struct Inference {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Runtime,
    proving: Proving,
    overdue: Arc<Overdue>,
    recent: Recent,
    trying: watch::Sender<Option<Trying>>,
    clock: Clock,
    threads: Threads,
    /// How long a swap waits for a frame.
    confirm_within: watch::Sender<Duration>,
    /// The one that waits for the next frame; the worker takes it between two frames.
    slot: Mutex<Option<Candidate>>,
    running: watch::Receiver<Option<BundleDigest>>,
    model: watch::Receiver<Option<Arc<ModelInfo>>>,
    queue: Arc<FrameQueue>,
    one_swap: AsyncMutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Candidate>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_helpers(&self) -> bool {
        self.threads != Threads(1)
    }
}

/// What [`Inference::start`] needs.
pub struct Parts {
    /// ONNX Runtime.
    pub runtime: Runtime,
    /// Threads one inference may use.
    pub threads: Threads,
    /// Where frames come from; the worker opens it once there is a model.
    pub queue: Arc<FrameQueue>,
    /// For latencies.
    pub clock: Clock,
    /// Moved at every frame, and while none comes.
    pub pulse: Pulse,
    /// Where answers go.
    pub sink: Box<dyn Sink>,
    /// How long a swap waits for a frame to be tried on; longer than the source's period.
    pub confirm_within: Duration,
    /// What a hostile model meets.
    pub guards: Guards,
}

/// What bounds a model.
pub struct Guards {
    /// Where new models are tried.
    pub proving: Proving,
    /// How long a run may take.
    pub run_limit: Duration,
    /// Hears which model does not come back from a run.
    pub hung: Hung,
}

impl Guards {
    /// None: for tests with models that are good.
    pub fn unsafe_none() -> Self {
        let hour = Duration::from_secs(3600);
        let proving = Proving::UnsafeNowhere;
        Self { proving, run_limit: hour, hung: Box::new(|model| panic!("{model} hangs")) }
    }
}

impl std::fmt::Debug for Inference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Inference").field(&*self.shared.running.borrow()).finish()
    }
}

impl Inference {
    /// Starts the worker, without a model yet. It ends when the queue is closed and empty.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(parts: Parts) -> std::io::Result<Self> {
        let (running_tx, running) = watch::channel(None);
        let (model_tx, model) = watch::channel(None);
        let overdue = Overdue::new(parts.guards.run_limit, parts.guards.hung)?;
        let looking = overdue.clone().spawn()?;
        let shared = Arc::new(Shared {
            runtime: parts.runtime,
            proving: parts.guards.proving,
            overdue,
            recent: Recent::default(),
            trying: watch::Sender::new(None),
            clock: parts.clock.clone(),
            threads: parts.threads,
            confirm_within: watch::Sender::new(parts.confirm_within),
            slot: Mutex::new(None),
            running,
            model,
            queue: parts.queue,
            one_swap: AsyncMutex::new(()),
            thread: Mutex::new(None),
        });
        let worker = worker::Worker::new(
            shared.clone(),
            parts.clock,
            parts.pulse,
            parts.sink,
            running_tx,
            model_tx,
        );
        let thread = threads::spawn("inference", move || {
            priority::go_first();
            worker.run();
            drop(looking);
        })?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Self { shared })
    }

    /// Loads `bundle`, of the graph that was proven, and puts it in the place of the model in use.
    /// Returns once it has answered a frame, or, where no model answered before, when no frame came in
    /// time.
    ///
    /// Not cancel-safe in its result: dropped half-way, the swap goes on and nobody hears of it.
    ///
    /// # Errors
    /// [`SwapError`] says why not; the old model, if there is one, answers on.
    pub async fn swap(&self, bundle: Bundle, proof: Proof) -> Result<(), SwapError> {
        let _one = self.shared.one_swap.lock().await;
        let digest = bundle.digest();
        let (verdict, mut outcome) = oneshot::channel();
        loader::spawn(self.shared.clone(), bundle, proof, verdict)
            .map_err(|source| SwapError::Thread { bundle: digest, source })?;
        let stopping = || SwapError::Stopping { bundle: digest };
        // Loading takes as long as it takes; the wait for a frame begins once it is handed over.
        let handed = self.wait_until_handed(&mut outcome).await;
        if let Some(result) = handed {
            return result.unwrap_or_else(|_| Err(stopping()));
        }
        let confirm_within = *self.shared.confirm_within.borrow();
        if let Ok(result) = tokio::time::timeout(confirm_within, &mut outcome).await {
            return result.unwrap_or_else(|_| Err(stopping()));
        }
        if self.shared.running.borrow().is_none() {
            // Nothing to go back to: it is proven by its golden cases and answers when a frame
            // comes.
            return Ok(());
        }
        // Taking it back and the worker's taking it exclude each other: the slot's lock decides.
        if self.shared.slot().take().is_some() {
            let waited_s = confirm_within.as_secs();
            return Err(SwapError::NoFrame { bundle: digest, waited_s });
        }
        // The worker has it after all and is about to say.
        outcome.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Waits until the loader handed its session over, or has failed (then its result).
    async fn wait_until_handed(
        &self,
        outcome: &mut oneshot::Receiver<Result<(), SwapError>>,
    ) -> Option<Result<Result<(), SwapError>, oneshot::error::RecvError>> {
        loop {
            // Cancel-safe: the receiver is borrowed and the sleep holds nothing.
            tokio::select! {
                result = &mut *outcome => return Some(result),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            if self.shared.slot().is_some() {
                return None;
            }
        }
    }

    /// Proves `bundle`, which is in `folder`: by what is kept of an earlier proof, or in a child.
    ///
    /// Cancel-safe: dropped half-way, the child is ended and nothing has changed.
    ///
    /// # Errors
    /// [`SwapError::Refused`] or [`SwapError::Untried`].
    pub async fn prove(&self, bundle: BundleDigest, folder: &Path) -> Result<Proof, SwapError> {
        trying::prove(&self.shared, bundle, folder).await
    }

    /// Forgets what is kept of the proof of the bundle in `folder`.
    pub fn forget_proof(folder: &Path) {
        Kept::remove_from(folder);
    }

    /// The model that is being tried in a child, if one is.
    pub fn trying(&self) -> Option<Trying> {
        *self.shared.trying.borrow()
    }

    /// How long the run of a model has been over its limit, if it is.
    pub fn overdue(&self) -> Option<Duration> {
        self.shared.overdue.since()
    }

    /// Lets swaps from now on wait that long for a frame.
    pub fn set_confirm_within(&self, confirm_within: Duration) {
        self.shared.confirm_within.send_replace(confirm_within);
    }

    /// Whether a session has threads of its own that help with a frame. They begin as what the thread is
    /// that loads a model, and that one as what the thread is that asks for it: neither may give way.
    pub fn has_helpers(&self) -> bool {
        self.shared.has_helpers()
    }

    /// The bundle that answered a frame last; none before the first.
    pub fn running(&self) -> watch::Receiver<Option<BundleDigest>> {
        self.shared.running.clone()
    }

    /// What is known of the model that answers.
    pub fn model(&self) -> Option<Arc<ModelInfo>> {
        self.shared.model.borrow().clone()
    }

    /// Whether the worker's thread has ended.
    pub fn has_ended(&self) -> bool {
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the worker has answered what the closed queue still held. Blocks.
    pub fn join(&self) {
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the inference thread panicked");
        }
    }
}
