//! Loads a proven bundle beside the worker, hands it over, and drops what was replaced.

use std::sync::{Arc, mpsc};

use fleetloop_models::bundle::Bundle;
use fleetloop_models::session::{RunLimit, Runtime, Session, Threads};
use tokio::sync::oneshot;

use crate::proof::{self, Proof};
use crate::{priority, threads};

use super::{Candidate, ModelInfo, Proven, Shared, SwapError};

/// Opens a session for `bundle`, of the graph that was proven, and checks its golden cases, which also
/// warms it. Blocks; its runs are looked at through `limit`, if somebody does.
///
/// # Errors
/// [`SwapError::Session`] or [`SwapError::Golden`].
pub fn open(
    runtime: &Runtime,
    threads: Threads,
    bundle: &Bundle,
    proof: &Proof,
    limit: Option<RunLimit>,
) -> Result<Proven, SwapError> {
    let digest = bundle.digest();
    let opened = match &proof.graph {
        proof::Proven::Own => Session::open(runtime, bundle, threads),
        proof::Proven::Optimised(graph) => Session::open_optimised(runtime, graph, bundle, threads),
    };
    let mut session = opened.map_err(|source| SwapError::Session { bundle: digest, source })?;
    if let Some(limit) = limit {
        session.set_limit(limit);
    }
    let report = bundle
        .golden()
        .check(&mut session)
        .map_err(|source| SwapError::Golden { bundle: digest, source })?;
    let manifest = bundle.manifest();
    let info = Arc::new(ModelInfo {
        digest,
        name: manifest.name.clone(),
        version: manifest.version,
        labels: manifest.labels.clone(),
        reference: bundle.reference().cloned(),
    });
    Ok(Proven { session, info, report })
}

/// Starts the thread that loads `bundle`, hands it over and drops what was replaced.
pub(super) fn spawn(
    shared: Arc<Shared>,
    bundle: Bundle,
    proof: Proof,
    verdict: oneshot::Sender<Result<(), SwapError>>,
) -> std::io::Result<()> {
    threads::spawn("loader", move || {
        if !shared.has_helpers() {
            priority::give_way();
        }
        let runs = &shared.overdue.loader;
        runs.of(bundle.digest());
        let limit = Some(runs.limit.clone());
        let proven = match open(&shared.runtime, shared.threads, &bundle, &proof, limit) {
            Ok(proven) => Box::new(proven),
            Err(error) => return drop(verdict.send(Err(error))),
        };
        // Neither's bytes are needed while the session waits for a frame.
        drop((bundle, proof));
        let (discard, discarded) = mpsc::sync_channel(1);
        let has_model = shared.running.borrow().is_some();
        *shared.slot() = Some(Candidate { proven, verdict, discard });
        if !has_model {
            shared.queue.set_accepting(true);
        }
        // Dropping a session frees all its memory: not the worker's business. An error means that
        // there was nothing to discard.
        if let Ok(old) = discarded.recv() {
            drop(old);
        }
    })?;
    Ok(())
}
