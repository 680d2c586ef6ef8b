//! One connection to the broker, from nothing to its end.
//!
//! Two tasks: one does nothing but poll the client (a `publish().await` there would wait for
//! itself), the session decides and hands over with `try_publish`, which never waits. The polling
//! task hangs when the link stalls in the middle of a write, so the session watches for progress
//! and drops the whole connection, which is `clean()` and more: no packet and no packet id of a
//! dead connection is ever seen by the next one.

use std::time::Duration;

use fleetloop_protocol::DeviceId;
use fleetloop_protocol::backoff::Backoff;
use fleetloop_protocol::limits::MESSAGE_BYTES;
use fleetloop_protocol::topic::{Kind, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Filter, Packet, PubAck, PubAckReason,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::pace::Pace;
use super::uploads::Uploads;
use super::window::{WINDOW, Window};
use super::{takeovers, transport};
use crate::chain::chain;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::priority;

/// Packets that may be unacknowledged at the broker, the default of the brokers we know.
const INFLIGHT: u16 = 16;
/// Requests the client queues: a window, and as much again for reports, results and telemetry.
const QUEUE: usize = 2 * WINDOW;
/// Events the polling task may be ahead: two windows of receipts and acknowledgements.
const EVENTS: usize = 4 * WINDOW;
/// What MQTT adds to a payload at most: fixed header, topic, packet id, properties.
const PACKET_OVERHEAD: usize = 256;

const CONNECT_WITHIN: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Connection {
    client: AsyncClient,
    pub(super) events: mpsc::Receiver<Result<Event, String>>,
    polling: JoinHandle<()>,
    pub(super) window: Window,
    pub(super) pace: Pace,
    /// The largest payload the broker takes.
    pub(super) payload_limit: usize,
    /// The subscription stands, so answers will be heard.
    pub(super) ready: bool,
    /// When it was opened.
    opened_at: Duration,
    /// The broker answers and the hub behind it does not: nothing is taken from the outbox before
    /// this time.
    silent_until: Duration,
    /// How long that is, the next time.
    silence: Backoff,
    /// Payloads on their way beside this connection, once it is ready.
    pub(super) uploads: Option<Uploads>,
    /// The outbox may hold something that is not under way.
    pub(super) more: bool,
    pub(super) reported_at: Duration,
    pub(super) draining: bool,
    pub(super) last_telemetry_sent: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

impl Connection {
    /// Begins to connect to the broker whose turn it is.
    pub(super) fn open(identity: &Identity, clock: &Clock) -> Result<Self, String> {
        let broker = identity.contacts().broker();
        let mut options = MqttOptions::new(identity.device().as_str(), &broker.host, broker.port);
        options.set_transport(transport(identity, clock)?);
        options.set_clean_start(true);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_connection_timeout(CONNECT_WITHIN.as_secs());
        options.set_outgoing_inflight_upper_limit(INFLIGHT);
        let limit = u32::try_from(MESSAGE_BYTES + PACKET_OVERHEAD).unwrap_or(u32::MAX);
        options.set_max_packet_size(Some(limit));
        Ok(Self::start(options, clock.monotonic()))
    }

    fn start(options: MqttOptions, now: Duration) -> Self {
        let (client, mut eventloop) = AsyncClient::new(options, QUEUE);
        let (sender, events) = mpsc::channel(EVENTS);
        let polling = tokio::spawn(async move {
            loop {
                let event = eventloop.poll().await.map_err(|error| said(&error));
                priority::after_you();
                let ended = event.is_err();
                if sender.send(event).await.is_err() || ended {
                    return;
                }
            }
        });
        Self {
            client,
            events,
            polling,
            window: Window::new(now),
            pace: Pace::default(),
            payload_limit: MESSAGE_BYTES,
            ready: false,
            opened_at: now,
            silent_until: now,
            silence: Backoff::default(),
            uploads: None,
            more: false,
            reported_at: now,
            draining: false,
            last_telemetry_sent: false,
        }
    }

    /// Waits until the broker has said yes.
    pub(super) async fn connected(&mut self) -> Result<(), String> {
        loop {
            let event = timeout(CONNECT_WITHIN, self.events.recv())
                .await
                .map_err(|_| format!("the broker did not answer within {CONNECT_WITHIN:?}"))?
                .ok_or("the client has ended")??;
            if let Event::Incoming(Packet::ConnAck(ack)) = event {
                self.payload_limit = payload_limit(&ack);
                return Ok(());
            }
        }
    }

    /// Asks for what the hub says to this device.
    pub(super) fn subscribe(&self, device: &DeviceId) -> Result<(), String> {
        let filters = [Kind::Receipt, Kind::Refusal, Kind::Desired]
            .map(|kind| Filter::new(Topic::new(device, kind).to_string(), QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters).map_err(|error| chain(&error))
    }

    /// How many messages of the outbox the pace allows. At the end there are no frames to go slowly for.
    pub(super) const fn allowed(&self) -> usize {
        if self.draining { WINDOW } else { self.pace.left() }
    }

    /// How many messages may be taken from the outbox now. When no receipt comes, a while passes before
    /// the next are taken, longer each time; but at the end there is no time to wait.
    pub(super) fn room(&mut self, now: Duration) -> usize {
        if self.window.lose(now) {
            let wait = self.silence.next_wait();
            self.silent_until = now + wait;
            tracing::warn!(wait_s = wait.as_secs(), "the hub does not answer what it was sent");
        }
        if now < self.silent_until && !self.draining {
            return 0;
        }
        self.window.room().min(self.allowed())
    }

    /// A receipt or a refusal came.
    pub(super) fn answered(&mut self) {
        self.window.answered();
        self.silence.reset();
        self.silent_until = Duration::ZERO;
    }

    /// Why the connection is worth nothing any more, if so.
    pub(super) fn verdict(&self, now: Duration) -> Result<(), String> {
        if self.window.stalled(now) {
            return Err("the broker takes messages and answers none".into());
        }
        if !self.ready && now.saturating_sub(self.opened_at) >= 2 * CONNECT_WITHIN {
            return Err("the broker does not answer the subscription".into());
        }
        Ok(())
    }

    /// Hands a message over that the broker will acknowledge; false when there is no room, or when
    /// it is larger than the broker takes, which would end the connection each time.
    pub(super) fn publish(&mut self, topic: &str, bytes: Vec<u8>, now: Duration) -> bool {
        let (len, limit) = (bytes.len(), self.payload_limit);
        if len > limit {
            tracing::error!(
                topic,
                len,
                limit,
                "the broker takes no message of this size; raise its limit"
            );
            return false;
        }
        let handed = self.client.try_publish(topic, QoS::AtLeastOnce, false, bytes).is_ok();
        if handed {
            self.window.sent(now);
        } else {
            tracing::debug!(topic, "the client's queue is full");
        }
        handed
    }

    /// Results are sent at most once: one that finds no room is gone.
    pub(super) fn publish_result(&mut self, topic: &str, bytes: Vec<u8>) {
        if bytes.len() <= self.payload_limit
            && self.client.try_publish(topic, QoS::AtMostOnce, false, bytes).is_ok()
        {
            self.window.sent_unacknowledged();
        }
    }

    /// The broker has a message, or will not have it.
    pub(super) fn on_ack(&mut self, ack: &PubAck, now: Duration) {
        self.window.acknowledged(now);
        if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
            // The outbox offers it again when no receipt comes.
            tracing::warn!(reason = ?ack.reason, "the broker refuses a message");
        }
    }

    /// Says good-bye, so that the broker does not wait for this client.
    pub(super) async fn disconnect(&mut self) -> Result<(), String> {
        self.client.try_disconnect().ok();
        let ended = async { while matches!(self.events.recv().await, Some(Ok(_))) {} };
        timeout(GOODBYE_WITHIN, ended).await.ok();
        Ok(())
    }
}

/// What a person is told of the end of a connection.
fn said(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized) => {
            "the hub does not admit this device: it was revoked or replaced there, see \
             'fleet-hub device list'; with a new token, enrol it into an empty data folder"
                .to_owned()
        }
        error if takeovers::is_take_over(error) => takeovers::TAKEN_OVER.to_owned(),
        other => chain(other),
    }
}

fn payload_limit(ack: &ConnAck) -> usize {
    let broker = ack.properties.as_ref().and_then(|properties| properties.max_packet_size);
    let broker = broker.map_or(usize::MAX, |bytes| bytes as usize);
    MESSAGE_BYTES.min(broker.saturating_sub(PACKET_OVERHEAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_admitted_hears_what_to_do_and_others_what_happened() {
        let refused = |code| said(&ConnectionError::ConnectionRefused(code));
        assert!(refused(ConnectReturnCode::NotAuthorized).contains("fleet-hub device list"));
        assert!(refused(ConnectReturnCode::ServerBusy).contains("ServerBusy"));
    }
}
