//! Disks without room.

use anyhow::{Context as _, Result, ensure};

use super::{COME_BACK, FAULT, Run, Volumes};
use crate::wait;

pub(super) fn device_full(run: &mut Run<'_>) -> Result<()> {
    let device = &volumes(run)?.device;
    run.rig.fill(device)?;
    run.answering(|run| {
        run.agent.becomes("notice that its disk is full", COME_BACK, |status| {
            status.outbox.is_some_and(|outbox| outbox.paused)
        })
    })?;
    run.rig.make_room(device)
}

pub(super) fn hub_full(run: &mut Run<'_>) -> Result<()> {
    let hub = &volumes(run)?.hub;
    run.rig.fill(hub)?;
    let waiting = || {
        let outbox = run.agent.told()?.outbox.context("the agent shows no outbox")?;
        Ok::<_, anyhow::Error>((outbox.samples, outbox.samples_receipted_total))
    };
    run.answering(|_| {
        // What was under way when the disk became full may still be stored.
        wait::until("a hub that stores nothing", COME_BACK, FAULT, || {
            let (before, receipted) = waiting()?;
            std::thread::sleep(FAULT);
            let (after, still) = waiting()?;
            Ok((after > before && still == receipted).then_some(()))
        })
    })?;
    let runs = run.rig.ended(run.plant.hub.running()?)?.is_none();
    ensure!(runs, "the hub ended on a full disk");
    run.rig.make_room(hub)
}

fn volumes<'a>(run: &'a Run<'_>) -> Result<&'a Volumes> {
    run.volumes.as_ref().context("the rig made no volumes")
}
