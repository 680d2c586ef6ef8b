//! The broker inside the hub: `rmqtt` behind mutual TLS.
//!
//! Invariants: a session's client id is its certificate's common name, which is an enrolled device
//! or the hub itself, or there is no session; [`rules`] decide every publish, subscription and
//! will; a revoked device is kicked, and one that was let in while it was being revoked is found
//! when its session stands. Nothing here is durable: devices keep what has no receipt.

pub mod rules;
mod sessions;

use std::num::NonZeroU16;
use std::time::Duration;

use fleetloop_protocol::limits::{DEVICE_ID_BYTES, MESSAGE_BYTES};
use rmqtt::context::ServerContext;
use rmqtt::hook::Type;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use tokio::task::JoinHandle;

use crate::pki::Pki;
use crate::state::AppState;
use sessions::{Guard, Sessions};

/// What an MQTT packet has beside its payload: topic, properties, headers. A message a little over
/// its limit still reaches the hub, which refuses it in words.
const PACKET_OVERHEAD_BYTES: u32 = 4096;

/// Messages that wait for one session. The busiest is the hub's own: 2048 full messages are 256 MiB.
/// What does not fit is dropped, and sent again by the device that has no receipt for it.
const SESSION_QUEUE: usize = 2048;

/// Messages on their way to one session without its acknowledgement.
const SESSION_INFLIGHT: NonZeroU16 = NonZeroU16::new(128).expect("above 0");

/// How long a message may wait in a session; nothing correct depends on it.
const MESSAGE_EXPIRY: Duration = Duration::from_secs(3600);

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the broker at {address}; is another hub running, or the port taken?")]
pub struct BrokerError {
    address: std::net::SocketAddr,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The running broker.
pub struct Broker {
    sessions: Sessions,
    server: JoinHandle<()>,
    watcher: JoinHandle<()>,
}

impl Broker {
    /// Binds the listener and starts serving.
    ///
    /// # Errors
    /// The address is taken, or a certificate cannot be used.
    pub async fn start(state: &AppState, pki: &Pki) -> Result<Self, BrokerError> {
        let address = state.config.mqtt_listen;
        // Refusing devices because the machine computes would stop the fleet whenever a model trains.
        let context = ServerContext::new().busy_check_enable(false).build().await;
        let sessions = Sessions::new(context.clone(), address.port());
        let register = context.extends.hook_mgr().register();
        for hook in [
            Type::ClientAuthenticate,
            Type::ClientConnected,
            Type::MessagePublishCheckAcl,
            Type::ClientSubscribeCheckAcl,
        ] {
            let guard = Guard { store: state.store.clone(), sessions: sessions.clone() };
            register.add(hook, Box::new(guard)).await;
        }
        register.start().await;
        let server_pem = pki.server_pem().display().to_string();
        let listener = Builder::new()
            .name("devices")
            .laddr(address)
            // Else a hub that was killed could not start again for a minute.
            .reuseaddr(Some(true))
            .nodelay(true)
            .allow_anonymous(false)
            .max_packet_size(MESSAGE_BYTES as u32 + PACKET_OVERHEAD_BYTES)
            .max_clientid_len(DEVICE_ID_BYTES)
            .max_mqueue_len(SESSION_QUEUE)
            .max_inflight(SESSION_INFLIGHT)
            .message_expiry_interval(MESSAGE_EXPIRY)
            .tls_cert(Some(server_pem.clone()))
            .tls_key(Some(server_pem))
            .tls_client_ca_certs(Some(pki.ca_pem().display().to_string()))
            .tls_cross_certificate(true)
            .cert_cn_as_username(true)
            .collect_cert_info(true)
            .bind()
            .and_then(rmqtt::net::Listener::tls)
            .map_err(|error| BrokerError { address, source: error.into() })?;
        let server = MqttServer::new(context).listener(listener).build();
        let server = tokio::spawn(async move {
            if let Err(error) = server.run().await {
                tracing::error!(%error, "the broker stopped");
            }
        });
        let watcher = tokio::spawn(
            sessions.clone().kick_revoked(state.store.clone(), state.events.subscribe()),
        );
        Ok(Self { sessions, server, watcher })
    }

    /// Waits until the broker ends by itself, which it should not.
    pub async fn ended(&mut self) {
        let _ = (&mut self.server).await;
    }

    /// Takes no more connections and ends the sessions there are.
    pub async fn stop(self) {
        self.watcher.abort();
        self.server.abort();
        self.sessions.kick_all().await;
    }
}
