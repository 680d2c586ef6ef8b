//! No memory, and files whose bytes are wrong.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{COME_BACK, FAULT, Run};
use crate::fleet::rollout;

/// The device gets no more memory than it has, and is told to load a model. It may live or end;
/// started again, it must be whole.
pub(super) fn no_memory(run: &mut Run<'_>) -> Result<()> {
    let process = run.agent.process().context("the agent does not run")?.clone();
    run.rig.limit_memory(&process, 0)?;
    let rollout = rollout::begin(&run.plant.hub, run.plant.bundles[0])?;
    std::thread::sleep(FAULT);
    let note = match run.rig.ended(&process)? {
        Some(ended) => format!("without memory the device ended: {ended:?}"),
        None => "without memory the device lived on".to_owned(),
    };
    run.notes.push(note);
    // The limit goes with the process.
    run.agent.kill()?;
    run.agent.start()?;
    run.agent.becomes("answer again", COME_BACK, |status| status.answering().is_some())?;
    let (progress, running) = (run.plant.progress(), &|| run.agent.must_run());
    let phase = rollout::end(&run.plant.hub, &rollout, progress, running)?;
    run.notes.push(format!("the model that was to be loaded then: {phase:?}"));
    rollout::roll_out(&run.plant.hub, run.ordered()?, progress, running)
}

/// The device finds its model damaged: it answers with the one before, and fetches it again.
pub(super) fn model(run: &mut Run<'_>) -> Result<()> {
    run.ledger.stop(&mut run.agent)?;
    let bundle = run.agent.data().join("bundles").join(run.ordered()?.to_string());
    damage(&bundle.join("model.onnx"), 0.5)?;
    run.plant.hub.kill()?;
    run.agent.start()?;
    let before = run.plant.bundles[0];
    run.agent.becomes("answer with the model before", COME_BACK, |status| {
        status.answering() == Some(before)
    })?;
    run.answering(|_| {
        std::thread::sleep(FAULT);
        Ok(())
    })?;
    run.plant.hub.start()
}

/// The device finds its outbox damaged, with samples in it: it keeps the file and begins anew.
pub(super) fn outbox(run: &mut Run<'_>) -> Result<()> {
    run.plant.hub.kill()?;
    std::thread::sleep(FAULT);
    let last = run.ledger.stop(&mut run.agent)?;
    ensure!(last.samples_waiting > 0, "nothing waits in the outbox that is to be damaged");
    let file = run.agent.data().join("outbox.db");
    damage(&file, 0.0)?;
    run.plant.hub.start()?;
    run.agent.start()?;
    let old = run.ledger.epoch;
    let status = run.agent.becomes("begin a new outbox", COME_BACK, |status| {
        status.outbox.is_some_and(|outbox| Some(outbox.epoch) != old)
    })?;
    ensure!(status.outbox.is_some_and(|outbox| outbox.epoch != 0), "there is no outbox");
    let aside = run.agent.data().join("outbox.db.aside-1");
    ensure!(aside.is_file(), "the damaged outbox is not at {}", aside.display());
    run.ledger.abandon(&run.plant.hub)
}

/// Overwrites a hundred bytes at this share of the file's length.
fn damage(path: &Path, at: f64) -> Result<()> {
    let write = || {
        let file = OpenOptions::new().write(true).open(path)?;
        let offset = (file.metadata()?.len() as f64 * at) as u64;
        file.write_all_at(&[0x5a; 100], offset)
    };
    write().with_context(|| format!("cannot damage {}", path.display()))
}
