//! A model on its way to the devices, as an operator sends it: taken in, released, rolled out.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::models::{Model, Release};
use fleetloop_protocol::api::rollouts::{MemberState, Phase, Rollout};

use super::Hub;
use crate::progress::Progress;
use crate::wait;

/// How long one rollout may take: a device that was killed must come back first.
const ROLLOUT: Duration = Duration::from_secs(180);

/// How often the hub is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Has the hub take in the bundle in `folder` and releases it though no gate has judged it.
///
/// # Errors
/// When the hub refuses.
pub fn release_unjudged(hub: &Hub<'_>, folder: &Path) -> Result<BundleDigest> {
    let arguments: [OsString; 3] = ["model".into(), "import".into(), folder.into()];
    let model: Model = hub.admin(arguments)?;
    let bundle = model.bundle.to_string();
    let reason = "a scenario's model: what it says is not judged";
    let _: Release = hub.admin(["release", "publish", &bundle, "--without-gate", reason])?;
    Ok(model.bundle)
}

/// Rolls a released model out and waits until every device has proven it. `alive` fails when a
/// device that should answer has ended.
///
/// # Errors
/// When the rollout ends otherwise, or does not end.
pub fn roll_out(
    hub: &Hub<'_>,
    bundle: BundleDigest,
    progress: &dyn Progress,
    alive: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let rollout = begin(hub, bundle)?;
    match end(hub, &rollout, progress, alive)? {
        Phase::Done => Ok(()),
        phase => bail!("the rollout ended otherwise: {phase:?}"),
    }
}

/// Begins to roll a released model out.
///
/// # Errors
/// When the hub refuses.
pub fn begin(hub: &Hub<'_>, bundle: BundleDigest) -> Result<Rollout> {
    hub.admin(["rollout", "start", &bundle.to_string()])
}

/// Waits until a rollout is over and says how it ended.
///
/// # Errors
/// When it does not end, or `alive` fails.
pub fn end(
    hub: &Hub<'_>,
    rollout: &Rollout,
    progress: &dyn Progress,
    alive: &dyn Fn() -> Result<()>,
) -> Result<Phase> {
    let path = format!("rollouts/{}", rollout.id.0);
    let mut told = None;
    wait::until("a rollout", ROLLOUT, LOOK, || {
        alive()?;
        let rollout: Rollout = hub.api().get(&path)?;
        let proven = rollout.members.iter().filter(|m| m.state == MemberState::Proven).count();
        let all = rollout.members.len();
        let text = format!("{proven} of {all} devices answer with it");
        progress.at(Some(proven as f32 / all.max(1) as f32), &text);
        if told != Some(proven) && proven > 0 {
            progress.note(&text);
            told = Some(proven);
        }
        let over = !matches!(rollout.phase, Phase::Canary | Phase::Everyone);
        Ok(over.then_some(rollout.phase))
    })
}
