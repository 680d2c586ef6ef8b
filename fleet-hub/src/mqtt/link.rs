//! The connection: the task that polls, the task that publishes.
//!
//! `rumqttc` has its traps, each met here: packets over 10 KB need a limit of their own; `poll`
//! hangs on a stalled link, so its progress is watched; it has no back-off; publishing in the task
//! that polls would wait for itself; a clean start forgets subscriptions, so each connection
//! subscribes anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetloop_protocol::backoff::Backoff;
use fleetloop_protocol::limits::MESSAGE_BYTES;
use fleetloop_protocol::topic::{Kind, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::answers::Outgoing;
use super::ingest::Ingest;
use crate::pki::HUB_CLIENT;

/// A ping is sent this often, so that polling always makes progress on a link that lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A poll that does nothing for this long is stalled: three pings without an answer.
const STALLED: Duration = Duration::from_secs(35);

/// The shortest wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A link that stood for so long was a good one: the next failure waits shortly again. One that is
/// made and lost at once is a failure like any other.
const GOOD_LINK: Duration = Duration::from_secs(60);

/// Requests between the publisher and the event loop; the publisher waits when it is full.
const REQUESTS: usize = 64;

/// Publishes without an acknowledgement: what any broker allows.
const INFLIGHT: u16 = 16;

/// What the broker may send us at once: a message over its limit is refused in words, so it must
/// arrive first.
const PACKET_BYTES: u32 = MESSAGE_BYTES as u32 + 64 * 1024;

/// The event loop, not yet running.
pub(super) struct Link {
    events: EventLoop,
    address: String,
}

pub(super) fn channel(
    (host, port): &(String, u16),
    tls: Arc<rustls::ClientConfig>,
) -> (Link, AsyncClient) {
    let mut options = MqttOptions::new(HUB_CLIENT, host, *port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        .set_max_packet_size(Some(PACKET_BYTES))
        .set_outgoing_inflight_upper_limit(INFLIGHT)
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    let (client, events) = AsyncClient::new(options, REQUESTS);
    (Link { events, address: format!("{host}:{port}") }, client)
}

impl Link {
    /// Polls for ever and hands what arrives to `ingest`, which never waits.
    pub(super) async fn run(
        mut self,
        client: AsyncClient,
        ingest: Ingest,
        connected: watch::Sender<bool>,
    ) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut stands_since: Option<Instant> = None;
        loop {
            // Cancel-safe enough: it is dropped only when nothing moved for long, and then the
            // connection is thrown away with whatever was half sent.
            let event = timeout(STALLED, self.events.poll()).await;
            let failure = match event {
                Ok(Ok(event)) => match self.handle(event, &client, &ingest) {
                    Handled::Progress => continue,
                    Handled::Subscribed => {
                        stands_since = Some(Instant::now());
                        connected.send_replace(true);
                        tracing::info!(broker = %self.address, "connected to the broker");
                        continue;
                    }
                    Handled::Refused(reason) => reason,
                },
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the link is stalled".to_owned(),
            };
            connected.send_replace(false);
            self.events.clean();
            if stands_since.take().is_some_and(|since| since.elapsed() >= GOOD_LINK) {
                backoff.reset();
            }
            let wait = backoff.next_wait();
            tracing::warn!(broker = %self.address, %failure, ?wait, "no connection to the broker");
            tokio::time::sleep(wait).await;
        }
    }

    fn handle(&self, event: Event, client: &AsyncClient, ingest: &Ingest) -> Handled {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                let client = client.clone();
                // Waiting for room in the request queue here would wait for ourselves.
                tokio::spawn(async move {
                    if let Err(error) = client.subscribe_many(filters()).await {
                        tracing::error!(%error, "cannot ask for subscriptions");
                    }
                });
                Handled::Progress
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(qos) if *qos != QoS::AtMostOnce);
                if ack.return_codes.iter().all(granted) {
                    Handled::Subscribed
                } else {
                    Handled::Refused(format!(
                        "the broker refused our subscriptions ({:?}); allow {HUB_CLIENT:?} to \
                         subscribe to them at QoS 1",
                        ack.return_codes
                    ))
                }
            }
            Event::Incoming(Packet::Publish(publish)) => {
                ingest.take(&publish.topic, publish.payload);
                Handled::Progress
            }
            _ => Handled::Progress,
        }
    }
}

enum Handled {
    Progress,
    Subscribed,
    Refused(String),
}

/// All that devices write, but results, which are for others.
fn filters() -> Vec<Filter> {
    Kind::ALL
        .into_iter()
        .filter(|kind| kind.from_device() && *kind != Kind::Result)
        .map(|kind| Filter::new(Topic::all(kind), QoS::AtLeastOnce))
        .collect()
}

/// Hands what is to be sent to the event loop, one after another.
pub(super) async fn publish(client: AsyncClient, mut outgoing: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing { topic, payload }) = outgoing.recv().await {
        let sent = client.publish(topic.to_string(), QoS::AtLeastOnce, false, payload).await;
        if let Err(error) = sent {
            tracing::error!(%topic, %error, "cannot publish");
        }
    }
}
