//! Bringing a fleet into a state, cutting the power in it, and seeing it come back.

use std::time::Duration;

use anyhow::Result;

use super::Side;
use super::draw::{Cut, State};
use super::world::{GLANCE, PATIENCE, World};
use crate::rig::Ended;
use crate::wait;

/// Samples that wait when an outage has lasted long enough to catch up on.
const BACKLOG: usize = 60;

/// What is still caught up on when it is called so.
const BEHIND: usize = 10;

/// What a cut met.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Met {
    /// Whether the state was still the one that was aimed at.
    pub(super) aimed: bool,
    /// Acknowledged samples without a receipt at that moment.
    pub(super) at_risk: usize,
    /// From the device's start, or the hub's return, to a model's answer.
    pub(super) answered_after: Duration,
}

impl World<'_> {
    /// Cuts the power of one side; both work again when this returns.
    pub(super) fn cut(&mut self, side: Side, cut: Cut) -> Result<Met> {
        self.enter(side, cut.state)?;
        std::thread::sleep(cut.after);
        match side {
            Side::Agent => self.cut_agent(cut.state),
            Side::Hub => self.cut_hub(cut.state),
        }
    }

    /// Returns at the moment a state begins.
    fn enter(&mut self, side: Side, state: State) -> Result<()> {
        match (state, side) {
            (State::StartUp, Side::Agent) => {
                self.agent.kill()?;
                self.start_agent()
            }
            (State::StartUp, Side::Hub) => {
                self.hub.kill()?;
                self.hub.begin()
            }
            (State::Steady, _) => self.until_flowing(),
            (State::Swap, Side::Agent) => {
                self.until_flowing()?;
                self.until("the end of a swap", |ledger| !ledger.life.swapping)?;
                self.until("a new order", |ledger| ledger.life.swapping)
            }
            (State::Swap, Side::Hub) => {
                self.until_flowing()?;
                let begun = self.rollouts.begun();
                wait::until("a rollout", PATIENCE, GLANCE, || {
                    Ok((self.rollouts.begun() > begun).then_some(()))
                })
            }
            (State::CatchingUp, _) => {
                self.hub.kill()?;
                self.until("samples to wait", |ledger| ledger.open() >= BACKLOG)?;
                self.hub.start()?;
                // A new process tries at once; the one before may wait for its next try.
                self.agent.kill()?;
                self.start_agent()?;
                self.until_flowing()
            }
            (State::Stopping, Side::Agent) => {
                self.until_flowing()?;
                self.agent.ask_to_stop()
            }
            (State::Stopping, Side::Hub) => {
                self.until_flowing()?;
                self.hub.ask_to_stop()
            }
            (State::Alone, Side::Agent) => self.hub.kill(),
            (State::Alone, Side::Hub) => self.agent.kill(),
        }
    }

    fn cut_agent(&mut self, state: State) -> Result<Met> {
        let ended = self.agent.cut_power(&self.agent_volume)?;
        // It is gone, so its log is whole and says in which state it was.
        self.ledger.read()?;
        let life = self.ledger.life;
        let at_risk = self.ledger.open();
        let aimed = match state {
            // The link may have been lost since: without its disk an agent sends nothing.
            State::StartUp => !life.reached,
            State::Steady => life.receipts > 0,
            State::Swap => life.swapping,
            State::CatchingUp => life.receipts > 0 && at_risk >= BEHIND,
            State::Stopping => life.stopping && ended != Ended::Exited(0),
            State::Alone => true,
        };
        self.rig.restore(&self.agent_volume)?;
        self.start_agent()?;
        let answered_after = self.until_answering()?;
        if state == State::Alone {
            self.hub.start()?;
        }
        Ok(Met { aimed, at_risk, answered_after })
    }

    fn cut_hub(&mut self, state: State) -> Result<Met> {
        let (served, rolling) = (self.hub.is_ready()?, self.rollouts.under_way());
        let ended = self.hub.cut_power(&self.hub_volume)?;
        self.ledger.read()?;
        let at_risk = self.ledger.open();
        let aimed = match state {
            State::StartUp => !served,
            State::Steady | State::Alone => served,
            State::Swap => rolling,
            State::CatchingUp => at_risk >= BEHIND,
            State::Stopping => ended != Ended::Exited(0),
        };
        self.rig.restore(&self.hub_volume)?;
        self.hub.start()?;
        if state == State::Alone {
            self.start_agent()?;
        }
        let answered_after = self.until_answering()?;
        Ok(Met { aimed, at_risk, answered_after })
    }
}
