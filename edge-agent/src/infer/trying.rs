//! A bundle is tried before it may be loaded: what is kept of an earlier proof, or a child process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleetloop_protocol::BundleDigest;
use tokio::sync::oneshot;

use super::optimised::Kept;
use super::{Shared, SwapError};
use crate::proof::{Cancel, FRAMES, FRAMES_WITHIN, Failure, Proof, Prover, Task};
use crate::{priority, threads};

/// Where new models are tried.
#[derive(Debug, Clone)]
pub enum Proving {
    /// In a child process with limits.
    InChild(Prover),
    /// Nowhere: for tests of something else.
    UnsafeNowhere,
}

/// A model that is being tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trying {
    /// Which.
    pub bundle: BundleDigest,
    /// Since when, by the monotonic clock.
    pub since: Duration,
    /// How long that may take.
    pub at_most: Duration,
}

/// Ends the child when nobody waits any more.
struct Waiting<'s>(&'s Shared, Cancel);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.1.cancel();
        self.0.trying.send_replace(None);
    }
}

pub(super) async fn prove(
    shared: &Arc<Shared>,
    bundle: BundleDigest,
    folder: &Path,
) -> Result<Proof, SwapError> {
    let Proving::InChild(prover) = &shared.proving else { return Ok(Proof::unsafe_without()) };
    let at_most = Duration::from_secs(prover.limits().wall_s.into());
    let since = shared.clock.monotonic();
    shared.trying.send_replace(Some(Trying { bundle, since, at_most }));
    let waiting = Waiting(shared, Cancel::default());
    let (say, verdict) = oneshot::channel();
    let work = {
        let (shared, prover, cancel) = (shared.clone(), prover.clone(), waiting.1.clone());
        let folder = folder.to_owned();
        move || {
            priority::give_way();
            drop(say.send(by_what_is_kept(&shared, &prover, bundle, folder, &cancel)));
        }
    };
    threads::spawn("proof", work).map_err(|source| SwapError::Thread { bundle, source })?;
    verdict.await.unwrap_or(Err(Failure::Cancelled)).map_err(|failure| match failure {
        Failure::Refused(reason) => SwapError::Refused { bundle, reason },
        Failure::Untried(reason) => SwapError::Untried { bundle, reason },
        Failure::Cancelled => SwapError::Stopping { bundle },
    })
}

/// Blocks.
fn by_what_is_kept(
    shared: &Shared,
    prover: &Prover,
    bundle: BundleDigest,
    folder: PathBuf,
    cancel: &Cancel,
) -> Result<Proof, Failure> {
    let kept = Kept::new(&folder, bundle, &shared.runtime);
    if let Some(proof) = kept.read() {
        return Ok(proof);
    }
    let answers = shared.running.borrow().is_some();
    let frames = if answers { shared.recent.collect(FRAMES, FRAMES_WITHIN) } else { Vec::new() };
    let library = shared.runtime.library().to_owned();
    let graph = prover.prove(Task { bundle, folder, library, frames }, cancel)?;
    kept.keep(&graph);
    Ok(Proof::new(graph))
}
