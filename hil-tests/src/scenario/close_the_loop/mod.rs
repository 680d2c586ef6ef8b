//! The loop closes once: a fleet's world changes, a person labels what its devices send, the hub
//! has the model retrained and rolls it out while frames flow.
//!
//! ```text
//!  prepare:  hub, worker → import → train → gate → release → enrol → roll out → capacity
//!  learn:    frames flow → the world changes → samples → labels → retrain → gate → release
//!            → roll out
//!  measure:  stop → count samples and frames → accuracy of both models on unseen pictures
//! ```
//!
//! Everything is done through the product's own command lines and API, by separate processes. No
//! figure is taken from what the scenario meant to do; each is counted where the thing happened.
//! With [`Plan::kills`] the hub, an agent and the worker are killed on the way and started again.
//! An agent that was killed counts its frames anew, so those of its killed start are in no figure;
//! its samples are.

mod figures;
mod learn;
mod measure;
mod plan;
mod prepare;
pub mod table;

use std::time::Instant;

use anyhow::Result;
use fleetloop_protocol::BundleDigest;

use crate::fleet::{Agent, Assets, Hub, Stopped, Worker};
use crate::pictures::{self, LABELS, Part, Pictures};
use crate::progress::Progress;
use crate::rig::Rig;

pub use figures::{AgentFigures, Figures, Limits};
pub use plan::{Plan, Rate};

/// The name of the model.
const MODEL: &str = "garments";

/// How many parts [`Progress::stage`] is told of.
const STAGES: usize = 14;

/// The loop, and what it left running.
pub struct Outcome<'r> {
    /// What was measured.
    pub figures: Figures,
    /// The hub and its worker, still running.
    pub hub: Hub<'r>,
    /// The devices, stopped.
    pub agents: Vec<Agent<'r>>,
    /// Keeps the worker's handle.
    pub worker: Worker<'r>,
}

/// A run under way.
struct Run<'r> {
    rig: &'r dyn Rig,
    plan: Plan,
    progress: &'r dyn Progress,
    assets: Assets,
    stage: std::cell::Cell<usize>,
    pictures: Pictures,
    hub: Hub<'r>,
    worker: Worker<'r>,
    agents: Vec<Agent<'r>>,
    /// Last words of starts before the current one.
    earlier: Vec<Vec<Stopped>>,
}

/// Closes the loop.
///
/// # Errors
/// When a part fails. Figures that miss their limits are no error here; see [`Figures::missed`].
pub fn run<'r>(
    rig: &'r dyn Rig,
    plan: Plan,
    assets: &Assets,
    progress: &'r dyn Progress,
) -> Result<Outcome<'r>> {
    let begun = Instant::now();
    progress.stage(1, STAGES, "make a hub and its keys, start it and a training worker");
    let (images, labels) = pictures::paths(&assets.fashion_mnist, Part::Train);
    let pictures = Pictures::read(&images, &labels)?;
    let mut hub = Hub::init(rig, &LABELS)?;
    hub.start()?;
    let mut worker = Worker::new(rig, hub.access("worker"), assets);
    worker.start()?;
    let mut run = Run {
        rig,
        plan,
        progress,
        assets: assets.clone(),
        stage: std::cell::Cell::new(1),
        pictures,
        hub,
        worker,
        agents: Vec::new(),
        earlier: Vec::new(),
    };
    let before = run.prepare()?;
    let (after, labels_used) = run.learn(before)?;
    let figures = run.measure(&Models { before, after }, labels_used, begun)?;
    Ok(Outcome { figures, hub: run.hub, agents: run.agents, worker: run.worker })
}

/// The two models of a run.
struct Models {
    before: BundleDigest,
    after: BundleDigest,
}

impl Run<'_> {
    fn stage(&self, name: &str) {
        self.stage.set(self.stage.get() + 1);
        self.progress.stage(self.stage.get(), STAGES, name);
    }
}
