//! Loads and proves a bundle beside the worker, hands it over, and drops what was replaced.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use fleetloop_models::bundle::Bundle;
use fleetloop_models::session::{Runtime, Session, Threads};
use tokio::sync::oneshot;

use crate::chain::chain;
use crate::{priority, threads};

use super::optimised::Optimised;
use super::{Candidate, ModelInfo, Proven, Shared, SwapError};

/// Opens a session for `bundle` and checks its golden cases, which also warms it. Blocks.
///
/// With `kept`, by way of the optimised graph in that file, which is made if it is not there; the
/// bundle's own graph is used if that comes to nothing.
///
/// # Errors
/// [`SwapError::Session`] or [`SwapError::Golden`].
pub fn prove(
    runtime: &Runtime,
    threads: Threads,
    bundle: &Bundle,
    kept: Option<PathBuf>,
) -> Result<Proven, SwapError> {
    if let Some(path) = kept
        && let Some(proven) = prove_optimised(runtime, threads, bundle, path)
    {
        return Ok(proven);
    }
    prove_graph(runtime, threads, bundle, bundle.model())
}

fn prove_optimised(
    runtime: &Runtime,
    threads: Threads,
    bundle: &Bundle,
    path: PathBuf,
) -> Option<Proven> {
    let optimised = Optimised::new(path, bundle, runtime);
    let graph = optimised.read().or_else(|| {
        optimised.make(bundle, runtime);
        optimised.read()
    })?;
    match prove_graph(runtime, threads, bundle, graph.bytes()) {
        Ok(proven) => Some(proven),
        Err(error) => {
            let (bundle, reason) = (bundle.digest(), chain(&error));
            tracing::warn!(%bundle, reason, "the optimised graph is of no use; the bundle's is taken");
            optimised.discard();
            None
        }
    }
}

/// `graph` is the bundle's, or was made of it.
fn prove_graph(
    runtime: &Runtime,
    threads: Threads,
    bundle: &Bundle,
    graph: &[u8],
) -> Result<Proven, SwapError> {
    let digest = bundle.digest();
    let mut session = Session::from_model(runtime, graph, bundle.manifest(), threads)
        .map_err(|source| SwapError::Session { bundle: digest, source })?;
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

/// Starts the thread that proves `bundle`, hands it over and drops what was replaced.
pub(super) fn spawn(
    shared: Arc<Shared>,
    bundle: Bundle,
    kept: Option<PathBuf>,
    verdict: oneshot::Sender<Result<(), SwapError>>,
) -> std::io::Result<()> {
    threads::spawn("loader", move || {
        if !shared.has_helpers() {
            priority::give_way();
        }
        let proven = match prove(&shared.runtime, shared.threads, &bundle, kept) {
            Ok(proven) => Box::new(proven),
            Err(error) => return drop(verdict.send(Err(error))),
        };
        // The bundle's bytes are not needed while the session waits for a frame.
        drop(bundle);
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
