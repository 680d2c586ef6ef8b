//! The hub as an MQTT client: an ordinary one, of the broker inside or of any other.
//!
//! ```text
//! link (owns the event loop) ──► ingest (one task a message, at most the backlog)
//!   ▲                                │
//!   └── publisher ◄── answers ◄──────┘   signed receipts and refusals; orders
//! ```
//!
//! Invariants: the polling task never waits for anything but the network; a receipt leaves only
//! after the row it speaks of is on disk; a message of any content ends in an answer or in nothing,
//! never in a stop. What is lost here (a full queue, a dropped link) is sent again by the device.

mod answers;
mod ingest;
mod link;

use std::sync::Arc;
use std::time::Duration;

use fleetloop_protocol::DeviceId;
use fleetloop_protocol::state::Desired;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::pki::tls::{self, ClientCertificate};
use crate::pki::{Pki, PkiError};
use crate::state::AppState;

/// The running client.
pub struct Client {
    certificate: ClientCertificate,
    connected: watch::Sender<bool>,
    ingest: ingest::Ingest,
    tasks: Vec<JoinHandle<()>>,
}

impl Client {
    /// Starts connecting; goes on for ever.
    ///
    /// # Errors
    /// The hub's client certificate cannot be used.
    pub fn start(
        state: AppState,
        pki: Arc<Pki>,
        orders: mpsc::Receiver<(DeviceId, Desired)>,
    ) -> Result<Self, PkiError> {
        let (tls, certificate) = tls::hub_client(&pki)?;
        let address = state.config.own_mqtt_address();
        let (link, publisher) = link::channel(&address, Arc::new(tls));
        let (answers, outgoing) = answers::channel(pki);
        let connected = state.vitals.connected.clone();
        let ingest = ingest::Ingest::new(state, answers.clone());
        let tasks = vec![
            tokio::spawn(link.run(publisher.clone(), ingest.clone(), connected.clone())),
            tokio::spawn(link::publish(publisher, outgoing)),
            tokio::spawn(answers::sign_orders(answers, orders)),
        ];
        Ok(Self { certificate, connected, ingest, tasks })
    }

    /// What changes the certificate that the client shows from its next connection on.
    pub fn certificate(&self) -> ClientCertificate {
        self.certificate.clone()
    }

    /// Turns true while the client is connected and subscribed.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// Waits until a task of the client ends, which none should.
    pub async fn ended(&mut self) {
        let _ = futures::future::select_all(self.tasks.iter_mut()).await;
    }

    /// Takes nothing more in, waits at most `limit` until what is under way is stored and its
    /// answers are sent, and stops. What is cut off has its receipt or is sent again by its device.
    pub async fn drain(self, limit: Duration) {
        if tokio::time::timeout(limit, self.ingest.drain()).await.is_err() {
            tracing::warn!("messages under way are cut off; their devices send them again");
        }
        for task in self.tasks {
            task.abort();
        }
    }
}
