//! The broker inside the hub: `rmqtt`, behind the hub's own listener ([`relay`]).
//!
//! Invariants: a session's client id is its certificate's common name, which is an enrolled device
//! or the hub itself, or there is no session; [`rules`] decide every publish, subscription and
//! will; a revoked device is kicked, and one that was let in while it was being revoked is found
//! when its session stands; a device over its quota is held up, and nobody with it ([`way`]).
//! Nothing here is durable: devices keep what has no receipt.

pub mod greeting;
mod newest;
mod relay;
pub mod rules;
mod sessions;
mod way;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use fleetloop_protocol::limits::{DEVICE_ID_BYTES, MESSAGE_BYTES};
use rmqtt::context::ServerContext;
use rmqtt::hook::Type;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use tokio::task::JoinHandle;

use crate::listeners::gate::book::ListenerKind;
use crate::listeners::{ListenError, Listener};
use crate::pki::tls::{self, ClientCertificates};
use crate::pki::{Pki, PkiError};
use crate::quota::ON_THE_WAY;
use crate::state::AppState;
use relay::{Relay, Secret};
use sessions::{Guard, Sessions};
use way::Way;

/// What the broker calls its one listener.
const LISTENER: u16 = 1;

/// What an MQTT packet has beside its payload: topic, properties, headers. A message a little over
/// its limit still reaches the hub, which refuses it in words.
const PACKET_OVERHEAD_BYTES: u32 = 4096;

/// Messages that wait for one session. The hub's own has at most half of it ([`way`]): 1024 full
/// messages are 128 MiB. Of what the hub answers a device the oldest is dropped above that, and the
/// device asks again.
const SESSION_QUEUE: usize = 2 * ON_THE_WAY;

/// Messages on their way to one session without its acknowledgement.
const SESSION_INFLIGHT: NonZeroU16 = NonZeroU16::new(128).expect("above 0");

/// How long a message may wait in a session; nothing correct depends on it.
const MESSAGE_EXPIRY: Duration = Duration::from_secs(3600);

/// How long a stop waits for sessions to end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Its private port.
    #[error("cannot start the broker on the loopback interface")]
    Private(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The port of devices.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate that the port shows.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// The running broker.
pub struct Broker {
    sessions: Sessions,
    private: SocketAddr,
    listener: Listener,
    server: JoinHandle<()>,
    accepting: JoinHandle<()>,
    watcher: JoinHandle<()>,
}

impl Broker {
    /// Binds the listener and starts serving.
    ///
    /// # Errors
    /// The address is taken, or a certificate cannot be used.
    pub async fn start(state: &AppState, pki: &Pki) -> Result<Self, BrokerError> {
        // Refusing devices because the machine computes would stop the fleet whenever a model trains.
        let context = ServerContext::new().busy_check_enable(false).build().await;
        let sessions = Sessions::new(context.clone(), LISTENER);
        let secret = Secret::new().map_err(|error| BrokerError::Private(error.into()))?;
        let register = context.extends.hook_mgr().register();
        for hook in [
            Type::ClientAuthenticate,
            Type::ClientConnected,
            Type::MessagePublishCheckAcl,
            Type::ClientSubscribeCheckAcl,
            Type::MessageAcked,
            Type::MessageDelivered,
            Type::MessageDropped,
            Type::SessionSubscribed,
        ] {
            let (store, secret) = (state.store.clone(), secret.clone());
            let way = Way::new(state.quotas.clone());
            let guard = Guard { store, sessions: sessions.clone(), secret, way };
            register.add(hook, Box::new(guard)).await;
        }
        register.start().await;
        let private = private_listener().map_err(|error| BrokerError::Private(error.into()))?;
        let address = private.local_addr().map_err(|error| BrokerError::Private(error.into()))?;
        let (listener, accepting) = Listener::start(
            (ListenerKind::Mqtt, "MQTT"),
            state.config.mqtt_listen,
            tls::server(pki, ClientCertificates::Required, &state.clock)?,
            state.vitals.gate.clone(),
            Relay {
                store: state.store.clone(),
                broker: address,
                secret,
                newest: newest::Newest::default(),
            },
        )?;
        let server = MqttServer::new(context).listener_by_id(private, LISTENER).build();
        let server = tokio::spawn(async move {
            if let Err(error) = server.run().await {
                tracing::error!(%error, "the broker stopped");
            }
        });
        let watcher = tokio::spawn(
            sessions.clone().kick_revoked(state.store.clone(), state.events.subscribe()),
        );
        Ok(Self { sessions, private: address, listener, server, accepting, watcher })
    }

    /// Where devices come in.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Where the relay reaches it; on this machine only, and of no use without the relay's secret.
    pub fn private(&self) -> SocketAddr {
        self.private
    }

    /// Waits until the broker ends by itself, which it should not.
    pub async fn ended(&mut self) {
        // Cancel-safe: nothing is lost by not waiting any longer.
        tokio::select! {
            _ = &mut self.server => {}
            _ = &mut self.accepting => {}
        }
    }

    /// Takes no more connections and ends the sessions there are.
    pub async fn stop(self) {
        self.watcher.abort();
        self.listener.stop(LAST_WORDS);
        self.sessions.kick_all().await;
        let _ = self.accepting.await;
        self.server.abort();
    }
}

/// Where the relay reaches the broker: a port of this machine's own that the system chooses.
fn private_listener() -> rmqtt::Result<rmqtt::net::Listener> {
    Builder::new()
        .name("devices")
        .laddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .nodelay(true)
        .allow_anonymous(false)
        .max_packet_size(MESSAGE_BYTES as u32 + PACKET_OVERHEAD_BYTES)
        .max_clientid_len(DEVICE_ID_BYTES)
        .max_mqueue_len(SESSION_QUEUE)
        .max_inflight(SESSION_INFLIGHT)
        .message_expiry_interval(MESSAGE_EXPIRY)
        .bind()
        .and_then(rmqtt::net::Listener::tcp)
}
