//! What the hub says: receipts, refusals and orders, signed and queued for the link.

use std::sync::Arc;

use fleetloop_protocol::DeviceId;
use fleetloop_protocol::receipt::{Receipt, Refusal};
use fleetloop_protocol::signed::Signed;
use fleetloop_protocol::state::Desired;
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::wire::DecodeError;
use tokio::sync::mpsc;

use crate::pki::Pki;

/// Answers that wait for the link: as many as messages are let in at once by default, so that a
/// hub that stores faster than it can speak slows down instead of growing.
const QUEUE: usize = 1024;

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) topic: Topic,
    pub(super) payload: Vec<u8>,
}

/// Signs answers and queues them.
#[derive(Clone)]
pub(super) struct Answers {
    pki: Arc<Pki>,
    queue: mpsc::Sender<Outgoing>,
}

pub(super) fn channel(pki: Arc<Pki>) -> (Answers, mpsc::Receiver<Outgoing>) {
    let (queue, outgoing) = mpsc::channel(QUEUE);
    (Answers { pki, queue }, outgoing)
}

impl Answers {
    /// The signed bytes of a receipt; the same for the same receipt.
    pub(super) fn sign_receipt(
        &self,
        device: &DeviceId,
        receipt: &Receipt,
    ) -> Result<Vec<u8>, DecodeError> {
        Ok(Signed::seal(receipt, device, &self.pki.receipt)?.into_bytes())
    }

    /// Sends a receipt that is stored.
    pub(super) async fn receipt(&self, device: &DeviceId, signed: Vec<u8>) {
        self.send(Topic::new(device, Kind::Receipt), signed).await;
    }

    /// Signs and sends a refusal.
    pub(super) async fn refusal(&self, device: &DeviceId, refusal: &Refusal) {
        if let Some(outgoing) = self.sign_refusal(device, refusal) {
            self.send(outgoing.topic, outgoing.payload).await;
        }
    }

    /// Signs and sends a refusal if the queue has room; never waits.
    pub(super) fn try_refusal(&self, device: &DeviceId, refusal: &Refusal) {
        let Some(outgoing) = self.sign_refusal(device, refusal) else { return };
        if self.queue.try_send(outgoing).is_err() {
            tracing::debug!(%device, "no room for a refusal; the device sends again by itself");
        }
    }

    /// Signs and sends an order.
    pub(super) async fn order(&self, device: &DeviceId, desired: &Desired) {
        match Signed::seal(desired, device, &self.pki.assignment) {
            Ok(signed) => self.send(Topic::new(device, Kind::Desired), signed.into_bytes()).await,
            Err(error) => tracing::error!(%device, %error, "cannot sign an order"),
        }
    }

    /// Waits until all that was queued is handed to the link.
    pub(super) async fn drained(&self) {
        // All places free again: nothing waits.
        let _ = self.queue.reserve_many(QUEUE).await;
    }

    fn sign_refusal(&self, device: &DeviceId, refusal: &Refusal) -> Option<Outgoing> {
        match Signed::seal(refusal, device, &self.pki.receipt) {
            Ok(signed) => Some(Outgoing {
                topic: Topic::new(device, Kind::Refusal),
                payload: signed.into_bytes(),
            }),
            Err(error) => {
                tracing::error!(%device, %error, "cannot sign a refusal");
                None
            }
        }
    }

    async fn send(&self, topic: Topic, payload: Vec<u8>) {
        // It is closed only when the hub stops; the device asks again after the next start.
        let _ = self.queue.send(Outgoing { topic, payload }).await;
    }
}

/// Signs and sends the orders that the rollout driver hands over.
pub(super) async fn sign_orders(answers: Answers, mut orders: mpsc::Receiver<(DeviceId, Desired)>) {
    while let Some((device, desired)) = orders.recv().await {
        answers.order(&device, &desired).await;
    }
}
