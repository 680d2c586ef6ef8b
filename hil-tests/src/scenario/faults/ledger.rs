//! What was signed, held against what the hub has.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::RATE_HZ;
use crate::fleet::{Agent, Hub, Selection, Stopped};

/// How long sending the rest may take.
const REST: Duration = Duration::from_secs(60);

/// The book.
#[derive(Debug, Default)]
pub(in crate::scenario) struct Ledger {
    /// The life of the outbox that was stopped last.
    pub epoch: Option<u64>,
    /// Its last words.
    last: Option<Stopped>,
    pub signed: u64,
    pub stored: u64,
    pub declared_lost: u64,
}

impl Ledger {
    /// Stops the device in order and looks at its frames.
    pub(in crate::scenario) fn stop(&mut self, agent: &mut Agent<'_>) -> Result<Stopped> {
        let outbox = agent.told()?.outbox.context("the agent shows no outbox")?;
        let last = agent.stop()?;
        let Stopped { frames_in, frames_answered, frames_dropped, frames_failed, .. } = last;
        let told = frames_answered + frames_dropped + frames_failed;
        ensure!(frames_in == told, "of {frames_in} frames {told} are accounted for: {last:?}");
        (self.epoch, self.last) = (Some(outbox.epoch), Some(last));
        Ok(last)
    }

    /// The outbox that was stopped last is gone. What had a receipt must be stored, the rest was
    /// declared lost.
    pub(in crate::scenario) fn abandon(&mut self, hub: &Hub<'_>) -> Result<()> {
        let (epoch, last) = self.epoch.zip(self.last).context("no outbox was stopped")?;
        let stored = of_epoch(hub, epoch)?;
        let (signed, receipted) = (last.samples_signed_total, last.samples_receipted_total);
        // What was stored without its receipt having come is not lost.
        ensure!(
            (receipted..=signed).contains(&stored.samples),
            "{receipted} samples have a receipt, {} are stored",
            stored.samples
        );
        self.signed += signed;
        self.stored += stored.samples;
        self.declared_lost += signed - stored.samples;
        (self.epoch, self.last) = (None, None);
        Ok(())
    }

    /// Has the device send the rest, stops it, and holds all it signed against what is stored.
    pub(in crate::scenario) fn close(
        &mut self,
        agent: &mut Agent<'_>,
        hub: &Hub<'_>,
    ) -> Result<()> {
        self.stop(agent)?;
        agent.set_selection(Selection::everything().silent())?;
        agent.set_rate(RATE_HZ)?;
        agent.start()?;
        agent.becomes("send the rest", REST, |status| status.drained())?;
        let last = self.stop(agent)?;
        let stored = of_epoch(hub, self.epoch.context("there is no outbox")?)?;
        let signed = last.samples_signed_total;
        ensure!(
            (stored.samples, stored.next) == (signed, signed),
            "{signed} samples were signed; the hub has {}, up to number {}",
            stored.samples,
            stored.next
        );
        ensure!(signed > 0, "no sample was signed");
        self.signed += signed;
        self.stored += stored.samples;
        Ok(())
    }
}

/// What the hub has of one life of an outbox.
struct Stored {
    samples: u64,
    /// One above the highest sequence.
    next: u64,
}

/// Fails when a sample stands there twice.
fn of_epoch(hub: &Hub<'_>, epoch: u64) -> Result<Stored> {
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    for id in hub.stored()?.into_iter().filter(|id| id.epoch.0 == epoch) {
        *times.entry(id.sequence.0).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "samples stand at the hub more than once: {twice:?}");
    let next = times.last_key_value().map_or(0, |(sequence, _)| sequence + 1);
    Ok(Stored { samples: times.len() as u64, next })
}
