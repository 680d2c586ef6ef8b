//! A plant for scenarios that need devices with a model and nobody who trains one: a hub with
//! released bundles, and devices that are enrolled with it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fleetloop_models::bundle::{MANIFEST_FILE, Manifest};
use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::devices::TokenResponse;

use super::{Agent, Assets, Hub, HubPlace, Selection, rollout};
use crate::progress::Progress;
use crate::rig::Rig;

/// The two versions of the small model that the tests of `models/` use: 28×28 grey pixels, three
/// classes, ten kilobytes.
pub fn test_bundles() -> [PathBuf; 2] {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = here.parent().unwrap_or(here).join("models/tests/data");
    [data.join("linear-1"), data.join("linear-2")]
}

/// What a bundle tells apart, in its order.
///
/// # Errors
/// When the folder holds no bundle.
pub fn labels(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join(MANIFEST_FILE);
    let read = || format!("cannot read {}", path.display());
    Ok(Manifest::parse(&std::fs::read(&path).with_context(read)?).with_context(read)?.labels)
}

/// A hub that serves, and what it has released.
pub struct Plant<'r> {
    rig: &'r dyn Rig,
    assets: Assets,
    progress: &'r dyn Progress,
    /// The hub.
    pub hub: Hub<'r>,
    /// What it has released, in the order of the folders.
    pub bundles: Vec<BundleDigest>,
}

impl<'r> Plant<'r> {
    /// Makes a hub at `place` that knows the bundles' labels, has `prepare` say what is special about
    /// it, starts it and has it release the bundles in `folders`.
    ///
    /// # Errors
    /// When the hub cannot be made or refuses.
    pub fn build(
        rig: &'r dyn Rig,
        assets: &Assets,
        progress: &'r dyn Progress,
        place: &HubPlace,
        folders: &[PathBuf],
        prepare: impl FnOnce(&Hub<'r>) -> Result<()>,
    ) -> Result<Self> {
        let labels = folders.first().map(|folder| labels(folder)).transpose()?.unwrap_or_default();
        let mut hub = Hub::init_at(rig, place, &labels)?;
        prepare(&hub)?;
        hub.start()?;
        let bundles: Result<Vec<_>> =
            folders.iter().map(|folder| rollout::release_unjudged(&hub, folder)).collect();
        Ok(Self { rig, assets: assets.clone(), progress, hub, bundles: bundles? })
    }

    /// Who watches.
    pub fn progress(&self) -> &'r dyn Progress {
        self.progress
    }

    /// Makes a device, has `prepare` say what is special about it, and enrols it; it does not run
    /// yet and has no model.
    ///
    /// # Errors
    /// When its files cannot be written or the hub does not take it.
    pub fn enrol(
        &self,
        name: &str,
        selection: Selection,
        rate_hz: f64,
        prepare: impl FnOnce(&mut Agent<'r>) -> Result<()>,
    ) -> Result<Agent<'r>> {
        let mut agent = Agent::new(self.rig, name, &self.assets, selection, rate_hz)?;
        prepare(&mut agent)?;
        let token: TokenResponse = self.hub.admin(["device", "add", name])?;
        agent.enrol(&token.token)?;
        Ok(agent)
    }

    /// Rolls out one of [`Self::bundles`] to all devices.
    ///
    /// # Errors
    /// When the rollout does not end well, or `agent` has ended.
    pub fn roll_out(&self, bundle: BundleDigest, agent: &Agent<'_>) -> Result<()> {
        self.roll_out_to_all(bundle, std::slice::from_ref(agent))
    }

    /// The same for several that must all run.
    ///
    /// # Errors
    /// When the rollout does not end well, or one has ended.
    pub fn roll_out_to_all(&self, bundle: BundleDigest, agents: &[Agent<'_>]) -> Result<()> {
        let running = || agents.iter().try_for_each(Agent::must_run);
        rollout::roll_out(&self.hub, bundle, self.progress, &running)
    }
}
