//! Loads and proves a bundle beside the worker, hands it over, and drops what was replaced.

use std::sync::{Arc, mpsc};

use fleetloop_models::bundle::Bundle;
use fleetloop_models::session::{Runtime, Session, Threads};
use tokio::sync::oneshot;

use super::{Candidate, ModelInfo, Proven, Shared, SwapError};

/// Opens a session for `bundle` and checks its golden cases, which also warms it. Blocks.
///
/// # Errors
/// [`SwapError::Session`] or [`SwapError::Golden`].
pub fn prove(runtime: &Runtime, threads: Threads, bundle: &Bundle) -> Result<Proven, SwapError> {
    let digest = bundle.digest();
    let mut session = Session::open(runtime, bundle, threads)
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
    verdict: oneshot::Sender<Result<(), SwapError>>,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("loader".into()).spawn(move || {
        let proven = match prove(&shared.runtime, shared.threads, &bundle) {
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
