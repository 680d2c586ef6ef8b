//! The link is broken, and its ends are killed.

use anyhow::{Context as _, Result};

use super::{FAULT, Run};
use crate::rig::LinkState;

pub(super) fn down(run: &mut Run<'_>) -> Result<()> {
    link(run, LinkState::Down)
}

pub(super) fn slow(run: &mut Run<'_>) -> Result<()> {
    link(run, LinkState::Slow)
}

pub(super) fn lossy(run: &mut Run<'_>) -> Result<()> {
    link(run, LinkState::Lossy)
}

fn link(run: &Run<'_>, state: LinkState) -> Result<()> {
    let network = run.network.as_ref().context("the rig made no network")?;
    run.answering(|run| {
        run.rig.set_link(network, state)?;
        std::thread::sleep(FAULT);
        Ok(())
    })?;
    run.rig.set_link(network, LinkState::Up)
}

/// The broker goes with it: it is part of the hub.
pub(super) fn hub_killed(run: &mut Run<'_>) -> Result<()> {
    run.plant.hub.kill()?;
    run.answering(|_| {
        std::thread::sleep(FAULT);
        Ok(())
    })?;
    run.plant.hub.start()
}

pub(super) fn device_killed(run: &mut Run<'_>) -> Result<()> {
    run.agent.kill()?;
    run.agent.start()
}
