//! The way of a device's message through the broker to the hub's own client.
//!
//! `rmqtt` queues what is for a session without a bound, then drops the oldest above a bound. So a
//! message takes one of [`crate::quota::ON_THE_WAY`] places before it is forwarded and gives it back
//! when the hub's client has it, or when the broker dropped it. A device that finds no place waits,
//! at most [`PATIENCE`], and only its own session with it.
//!
//! A place whose message vanished without a word (nobody listened, or a session ended with messages in
//! hand) comes free when the hub's client subscribes anew.

use std::time::Duration;

use fleetloop_protocol::DeviceId;
use rmqtt::types::{From, Id};

use super::rules::Peer;
use crate::pki::HUB_CLIENT;
use crate::quota::{Quotas, Why};

/// How long a message may wait for a place. Shorter than what a device takes for a stalled link (45 s).
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone)]
pub(super) struct Way {
    quotas: Quotas,
}

impl Way {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self { quotas }
    }

    /// Holds a device's message of so many bytes up until its quota has room for it.
    pub(super) async fn pace(&self, device: &DeviceId, bytes: usize) {
        let wait = self.quotas.pace(device, bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits for a place; false when there was none in time, and the message is dropped.
    pub(super) async fn enter(&self, device: &DeviceId) -> bool {
        let entered = self.quotas.on_the_way().wait(device, PATIENCE).await;
        if !entered {
            self.quotas.drops().note(device, Why::Way);
        }
        entered
    }

    /// A message came to `session`.
    pub(super) fn arrived(&self, session: &Id, from: &From) {
        if session.client_id != HUB_CLIENT {
            return;
        }
        if let Some(Peer::Device(device)) = Peer::named(&from.id.client_id) {
            self.quotas.on_the_way().leave(&device);
        }
    }

    /// A message to the session `to` was dropped; one without a session was refused before it set out.
    pub(super) fn dropped(&self, to: Option<&Id>, from: &From) {
        let Some(to) = to else { return };
        match (Peer::named(&to.client_id), Peer::named(&from.id.client_id)) {
            (Some(Peer::Hub), Some(Peer::Device(device))) => {
                self.quotas.on_the_way().leave(&device);
                self.quotas.drops().note(&device, Why::Queue);
            }
            (Some(Peer::Device(device)), _) => self.quotas.drops().note(&device, Why::Answer),
            _ => {}
        }
    }

    /// `session` listens to one more topic. Of the hub's client that means a new session: what was on
    /// its way to the last one, or came while there was none, is gone.
    pub(super) fn subscribed(&self, session: &Id) {
        if session.client_id == HUB_CLIENT {
            self.quotas.on_the_way().clear();
        }
    }

    /// Whether a line about a message of that peer may be logged.
    pub(super) fn may_log(&self, peer: Option<&Peer>) -> bool {
        match peer {
            Some(Peer::Device(device)) => self.quotas.may_log(device),
            _ => true,
        }
    }
}
