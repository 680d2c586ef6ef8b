//! Updates: from a verified order to a model that answers.
//!
//! ```text
//!  Desired ─► order (persisted) ─► channel: time, TUF walk ─► target ─► bundles: fetch, check
//!                                                                            │
//!  Reported ◄── progress ◄── current.json ◄── has answered ◄── ModelHost::swap
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`tuf`] | the verification of release metadata, without I/O, and where it is kept |
//! | [`order`] | what the hub last ordered: decisions, persisted |
//! | [`http`] | the hub over mutual TLS: metadata, time, artefacts with resume |
//! | [`channel`] | the three together: a verified bundle on the disk, and the hub's keys |
//! | [`bundles`] | bundles on the disk, current and previous |
//! | [`trial`] | which model the agent may have ended by, and when to go back |
//! | [`models`] | what is put to work: at start, on an order, and when it fails |
//! | [`driver`] | the task that carries orders out |
//!
//! Trusted metadata gates installing, never running: an installed bundle runs for as long as it
//! reproduces its golden cases. A device whose trusted metadata or order cannot be read follows no
//! orders, and its model works on.

pub mod bundles;
pub mod channel;
pub mod driver;
pub mod error;
pub mod http;
pub mod models;
pub mod order;
mod revoked;
pub mod trial;
pub mod tuf;

#[cfg(test)]
mod tests;

use std::path::Path;

use fleetloop_models::bundle::Bundle;

use crate::chain::chain;

pub use bundles::{Bundles, Installed};
pub use error::UpdateError;

/// The bundle that is installed under `data_dir`, checked; the one before it when it is broken,
/// none when there was never one.
///
/// # Errors
/// [`UpdateError`] when neither can be used.
pub fn current_bundle(data_dir: &Path) -> Result<Option<Bundle>, UpdateError> {
    let bundles = Bundles::new(data_dir);
    let Installed { current, previous } = bundles.installed()?;
    let Some(current) = current else { return Ok(None) };
    match (bundles.open(current), previous) {
        (Ok(bundle), _) => Ok(Some(bundle)),
        (Err(error), None) => Err(UpdateError::Bundle(error)),
        (Err(error), Some(previous)) => {
            tracing::warn!(bundle = %current, reason = chain(&error), "taking the bundle before");
            bundles.open(previous).map(Some).map_err(UpdateError::Bundle)
        }
    }
}

/// Which bundles are installed under `data_dir`, unchecked.
///
/// # Errors
/// [`UpdateError::Record`] when the record is not readable.
pub fn bundle_state(data_dir: &Path) -> Result<Installed, UpdateError> {
    Bundles::new(data_dir).installed()
}
