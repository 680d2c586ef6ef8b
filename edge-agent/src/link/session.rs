//! What is sent over a connection, and what is made of what comes.
//!
//! Samples leave the outbox at a pace, in a window of messages under way; receipts and refusals come
//! back verified and settle it. A message that is not trusted is counted and ignored. No progress on a
//! connection that has something under way ends it.

use std::sync::Arc;
use std::time::Duration;

use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::keys::random_bytes;
use fleetloop_protocol::receipt::{Receipt, Refusal};
use fleetloop_protocol::signed::{Signable, Signed};
use fleetloop_protocol::state::Reported;
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::topic::{Kind, Topic};
use futures::future::join_all;
use rumqttc::Outgoing as Written;
use rumqttc::v5::Event;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubAck, SubscribeReasonCode};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::connection::Connection;
use super::inbox::{self, Inbound};
use super::pace::TURN;
use super::uploads::{self, Uploads};
use super::window::WINDOW;
use super::{Keys, LinkParts, LinkStatus};
use crate::chain::chain;
use crate::contacts::Way;
use crate::identity::TlsPair;
use crate::outbox::{Outgoing, Refused, Settled};
use crate::priority;
use crate::shutdown::{Shutdown, reached};
use crate::update::driver::Handle;

/// Bytes taken from the outbox at once.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// The outbox is asked again when this much of the window is free, not for every single receipt.
const BATCH_ROWS: usize = WINDOW / 4;

const REPORT_EVERY: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By the signal, after what could be sent was sent.
    Shutdown,
    /// To be made again with the new certificate.
    Renewed,
    /// Otherwise; why.
    Lost(String),
}

/// The device's side of all its connections.
pub(super) struct Session {
    parts: LinkParts,
    updater: Arc<Handle>,
    keys: Keys,
    running: watch::Receiver<Option<BundleDigest>>,
    status: watch::Sender<LinkStatus>,
    /// Drawn at random: the hub tells two processes with one identity apart by it.
    start: u64,
}

impl Session {
    pub(super) fn new(
        parts: LinkParts,
        updater: Arc<Handle>,
        running: watch::Receiver<Option<BundleDigest>>,
        status: watch::Sender<LinkStatus>,
    ) -> Self {
        let keys = updater.keys.clone();
        // Without random bytes the time serves as well: two processes hardly begin in one millisecond.
        let start = random_bytes::<8>().map_or(parts.clock.now().0, u64::from_le_bytes);
        Self { parts, updater, keys, running, status, start }
    }

    /// Connects and works until the connection or the process ends.
    pub(super) async fn connect_and_run(&mut self) -> Ended {
        self.attempt().await.unwrap_or_else(Ended::Lost)
    }

    async fn attempt(&mut self) -> Result<Ended, String> {
        // What was under way on the connection before is offered again.
        self.parts.outbox.connection_lost().await.map_err(|error| chain(&error))?;
        let certificate = self.parts.identity.tls();
        let ends = certificate.borrow().life().not_after;
        self.status.send_modify(|status| status.certificate_ends = ends);
        let mut link = Connection::open(&self.parts.identity, &self.parts.clock)?;
        let mut shutdown = self.parts.shutdown.clone();
        // Cancel-safe: the connection is dropped with the attempt.
        tokio::select! {
            connected = link.connected() => {
                if connected.is_err() {
                    self.parts.identity.contacts().failed(Way::Mqtt);
                }
                connected?;
            }
            () = reached(&mut shutdown, Shutdown::Drain) => return Ok(Ended::Shutdown),
        }
        link.subscribe(&self.parts.identity.record().device)?;
        let ended = self.work(&mut link, certificate).await;
        if let Some(uploads) = link.uploads.take() {
            uploads.end().await;
        }
        ended
    }

    async fn work(
        &mut self,
        link: &mut Connection,
        mut certificate: watch::Receiver<Arc<TlsPair>>,
    ) -> Result<Ended, String> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wake = self.parts.outbox.wake();
        let mut shutdown = self.parts.shutdown.clone();
        let mut progress = self.updater.progress.clone();
        let mut keys = self.keys.clone();
        let mut addresses = self.parts.identity.contacts().changes();
        loop {
            let slack = link.ready && link.window.has_slack();
            let known = self.keys.borrow().is_some();
            let rests = link.ready && link.more && link.allowed() == 0;
            // Cancel-safe: channels and notifications lose nothing when they are not chosen, the
            // ticks and the signal are only observed, and nothing is awaited half done.
            tokio::select! {
                event = link.events.recv() => self.on_events(link, event).await?,
                () = wake.notified(), if link.ready => link.more = true,
                Ok(()) = keys.changed() => {
                    link.more = true;
                    // An order that came before could not be believed; the hub answers with it again.
                    self.report(link);
                }
                // The hub waits for every device to say so before it retires an address.
                Ok(()) = addresses.changed() => self.report(link),
                Ok(()) = progress.changed() => self.report(link),
                Ok(()) = self.running.changed() => self.report(link),
                Some(telemetry) = self.parts.telemetry.recv(), if slack => {
                    self.send_telemetry(link, &telemetry);
                }
                Some(result) = self.parts.results.recv(), if slack => {
                    link.publish_result(&self.topic(Kind::Result), result);
                }
                Some(message) = uploads::next(&mut link.uploads), if slack && known => {
                    self.send(link, message);
                }
                Ok(()) = certificate.changed(), if !link.draining => {
                    tracing::info!("connecting again with the new certificate");
                    link.disconnect().await?;
                    return Ok(Ended::Renewed);
                }
                () = reached(&mut shutdown, Shutdown::Drain), if !link.draining => {
                    link.draining = true;
                    link.more = true;
                    // The hub need not wait for silence to know that the device is away.
                    self.report(link);
                }
                _ = tick.tick() => self.on_tick(link)?,
                _ = turn.tick(), if rests => link.pace.turn(),
            }
            self.send_from_outbox(link).await?;
            if link.draining && self.is_drained(link) {
                link.disconnect().await?;
                return Ok(Ended::Shutdown);
            }
        }
    }

    fn on_tick(&self, link: &mut Connection) -> Result<(), String> {
        let now = self.now();
        link.verdict(now)?;
        link.pace.second(self.parts.outbox.stats().signed_since_start);
        // Leases in the outbox run out without a notification.
        link.more = true;
        if now.saturating_sub(link.reported_at) >= REPORT_EVERY {
            self.report(link);
        }
        Ok(())
    }

    fn is_drained(&self, link: &Connection) -> bool {
        let telemetry = &self.parts.telemetry;
        let reported = link.last_telemetry_sent || (telemetry.is_closed() && telemetry.is_empty());
        reported && !link.more && link.window.is_idle()
    }

    /// One event and all that came with it.
    async fn on_events(
        &mut self,
        link: &mut Connection,
        first: Option<Result<Event, String>>,
    ) -> Result<(), String> {
        let mut next = first.ok_or("the client has ended")?;
        let (mut receipts, mut refusals) = (Vec::new(), Vec::new());
        loop {
            priority::after_you();
            match next? {
                Event::Outgoing(Written::Publish(_)) => link.window.written(self.now()),
                Event::Outgoing(_) => {}
                Event::Incoming(packet) => match packet {
                    Packet::Publish(publish) => match self.delivered(link, &publish) {
                        Some(Inbound::Receipt(receipt)) => receipts.push(receipt),
                        Some(Inbound::Refusal(refusal)) => refusals.push(refusal),
                        Some(Inbound::Desired(desired)) => {
                            // Full: the hub answers the next report with it again.
                            self.updater.orders.try_send(desired).ok();
                        }
                        None => {}
                    },
                    Packet::PubAck(ack) => link.on_ack(&ack, self.now()),
                    Packet::SubAck(ack) => self.on_subscribed(link, &ack)?,
                    _ => {}
                },
            }
            match link.events.try_recv() {
                Ok(event) => next = event,
                Err(_) => break,
            }
        }
        // Together, so that the outbox deletes them in one transaction.
        self.settle(link, receipts, refusals).await
    }

    fn delivered(&self, link: &mut Connection, publish: &Publish) -> Option<Inbound> {
        link.window.delivered(self.now());
        let topic = String::from_utf8_lossy(&publish.topic);
        let keys = self.keys.borrow().clone();
        let device = self.parts.identity.device();
        let now = self.parts.clock.now();
        match inbox::open(&topic, &publish.payload, device, keys.as_deref(), now) {
            Ok(inbound) => {
                self.status.send_modify(|status| status.last_heard = Some(now));
                Some(inbound)
            }
            Err(error) => {
                tracing::warn!(topic = %topic, reason = chain(&error), "a message is ignored");
                self.status.send_modify(|status| status.untrusted += 1);
                if error.asks_for_keys() {
                    self.updater.refresh.notify_one();
                }
                None
            }
        }
    }

    async fn settle(
        &self,
        link: &mut Connection,
        receipts: Vec<Receipt>,
        refusals: Vec<Refusal>,
    ) -> Result<(), String> {
        let outbox = &self.parts.outbox;
        let settled = join_all(receipts.into_iter().map(|receipt| outbox.settle(receipt))).await;
        for result in settled {
            link.answered();
            match result.map_err(|error| chain(&error))? {
                Settled::Deleted | Settled::Unknown => {}
                Settled::OtherDigest => {
                    tracing::error!(
                        "the hub stored another sample under an identity of this device"
                    );
                }
            }
        }
        for refusal in refusals {
            link.answered();
            let (reason, detail) = (refusal.reason, refusal.detail.clone());
            let refused = outbox.refuse(refusal).await.map_err(|error| chain(&error))?;
            if refused != Refused::Unknown {
                tracing::warn!(?reason, detail, ?refused, "the hub refused a message");
            }
        }
        Ok(())
    }

    fn on_subscribed(&self, link: &mut Connection, ack: &SubAck) -> Result<(), String> {
        if ack.return_codes.iter().any(|code| !matches!(code, SubscribeReasonCode::Success(_))) {
            return Err(format!("the broker refuses the subscription: {:?}", ack.return_codes));
        }
        (link.ready, link.more) = (true, true);
        self.status.send_modify(|status| {
            status.connected = true;
            status.last_error = self.updater.progress.borrow().problem.clone();
        });
        tracing::info!(device = %self.parts.identity.device(), "connected");
        let LinkParts { identity, clock, outbox, .. } = &self.parts;
        link.uploads = Some(Uploads::start(identity, clock, outbox.clone())?);
        self.report(link);
        // A hub that was restarted may have published other keys or addresses.
        self.updater.refresh.notify_one();
        Ok(())
    }

    async fn send_from_outbox(&self, link: &mut Connection) -> Result<(), String> {
        // A receipt could not be believed before the hub's keys are known.
        if self.keys.borrow().is_none() {
            link.more = false;
        }
        let free = link.window.room();
        let room = link.room(self.now());
        if !link.ready || !link.more || free < BATCH_ROWS || room == 0 {
            return Ok(());
        }
        let batch = self.parts.outbox.next_batch(room, BATCH_BYTES).await;
        let batch = batch.map_err(|error| chain(&error))?;
        link.more = !batch.is_empty();
        for message in batch {
            self.send(link, message);
        }
        Ok(())
    }

    /// Publishes a message of the outbox. One that is not sent stays there and is offered again;
    /// the ones beside it go on.
    fn send(&self, link: &mut Connection, message: Outgoing) {
        priority::after_you();
        let bytes = message.bytes.len();
        link.pace.sent();
        if link.publish(&self.topic(message.kind), message.bytes, self.now()) {
            link.window.awaits_receipt(self.now());
            if let Some(sample) = message.sample {
                tracing::debug!(%sample, bytes, "sample sent");
            }
        }
    }

    fn report(&self, link: &mut Connection) {
        if !link.ready {
            return;
        }
        let progress = self.updater.progress.borrow().clone();
        let reported = Reported {
            generation: progress.generation,
            start: self.start,
            epoch: self.parts.outbox.stats().epoch(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            at: self.parts.clock.now(),
            clock: self.parts.clock.state(),
            running: *self.running.borrow(),
            update: progress.update,
            addresses: self.parts.identity.contacts().known().generation,
            stopping: link.draining,
        };
        link.reported_at = self.now();
        self.send_signed(link, Kind::Reported, &reported);
    }

    fn send_telemetry(&self, link: &mut Connection, telemetry: &Telemetry) {
        link.last_telemetry_sent = link.draining;
        self.send_signed(link, Kind::Telemetry, telemetry);
    }

    fn send_signed<T: Signable>(&self, link: &mut Connection, kind: Kind, value: &T) {
        let key = self.parts.identity.signing_key();
        match Signed::seal(value, self.parts.identity.device(), &key) {
            Ok(signed) => {
                link.publish(&self.topic(kind), signed.into_bytes(), self.now());
            }
            Err(error) => tracing::error!(reason = chain(&error), "cannot send"),
        }
    }

    fn topic(&self, kind: Kind) -> String {
        Topic::new(self.parts.identity.device(), kind).to_string()
    }

    fn now(&self) -> Duration {
        self.parts.clock.monotonic()
    }
}
