//! The way from a device to the broker: the hub's own listener, mutual TLS, then bytes to and fro.
//!
//! `rmqtt` sets up TLS by itself and waits for a CONNECT without end, and neither can be changed from
//! outside. So the hub does both, and the broker listens on a port of the loopback interface only.
//! Any program on this machine can reach that port; what lets in is a [`Secret`], made anew at every
//! start, which the relay writes into the CONNECT beside the name that the certificate proves.
//!
//! A session costs three descriptors and 16 KiB for its two directions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fleetloop_protocol::Digest;
use fleetloop_protocol::keys::{KeyError, random_bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::greeting::{Connect, Greeting, NoConnect};
use super::newest::Newest;
use super::rules::Peer;
use crate::listeners::accept::Serve;
use crate::listeners::gate::Connection;
use crate::listeners::gate::book::{Holder, Phase, Reason};
use crate::listeners::{Stream, enrolled};
use crate::store::Store;

/// Descriptors of a session: the device's connection and both ends of the one to the broker.
const DESCRIPTORS: u64 = 3;

/// How long the other side may take when one has ended the session.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What only the relay and the broker's hooks know.
#[derive(Clone)]
pub(super) struct Secret(Arc<str>);

impl Secret {
    pub(super) fn new() -> Result<Self, KeyError> {
        Ok(Self(Digest::from_bytes(random_bytes()?).to_string().into()))
    }

    /// Whether `password` is it. Digests are compared, so that time says nothing of the secret.
    pub(super) fn is(&self, password: Option<&[u8]>) -> bool {
        password.is_some_and(|password| Digest::of(password) == Digest::of(self.0.as_bytes()))
    }
}

/// Relays the connections of one listener.
#[derive(Clone)]
pub(super) struct Relay {
    pub(super) store: Store,
    pub(super) broker: SocketAddr,
    pub(super) secret: Secret,
    pub(super) newest: Newest,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
enum NoSession {
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    NoConnect(#[from] NoConnect),
    #[error("its certificate names neither an enrolled device nor the hub")]
    NotEnrolled,
    #[error("all descriptors for devices are taken; raise the limit of open files")]
    Full,
}

impl Serve for Relay {
    async fn serve(
        self,
        mut stream: Stream,
        connection: Connection,
        name: Option<String>,
        mut stopping: watch::Receiver<bool>,
    ) {
        // Cancel-safe: a stop ends every session, and whatever has no receipt is sent again.
        let ended = tokio::select! {
            ended = self.session(&mut stream, &connection, name.as_deref()) => ended,
            _ = stopping.wait_for(|now| *now) => Ok(()),
        };
        if let Err(error) = ended {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(from = %connection.from(), name, error, "no MQTT session");
        }
    }
}

impl Relay {
    async fn session(
        &self,
        stream: &mut Stream,
        connection: &Connection,
        name: Option<&str>,
    ) -> Result<(), NoSession> {
        let holder = match name.and_then(Peer::named) {
            Some(Peer::Hub) => Some(Holder::Hub),
            Some(Peer::Device(_)) => enrolled(&self.store, name).await.map(Holder::Device),
            None => None,
        };
        let (Some(holder), Some(name)) = (holder, name) else {
            return self.refuse(stream, connection).await;
        };
        if !connection.authenticated(holder, DESCRIPTORS) {
            return Err(NoSession::Full);
        }
        connection.enter(Phase::Connect);
        let (connect, rest) = greeting(stream).await?;
        // Before the broker hears of this session, for it ends the one before it then.
        let turn = self.newest.begin(name);
        let taken_over = connect.taken_over()?;
        let mut first = connect.introduced(name, &self.secret.0)?;
        first.unsplit(rest);
        connection.enter(Phase::Session);
        let mut broker = TcpStream::connect(self.broker).await?;
        broker.set_nodelay(true)?;
        broker.write_all(&first).await?;
        drop(first);
        between(stream, broker, || if turn.is_over() { &taken_over[..] } else { &[] }).await;
        Ok(())
    }

    /// Tells whoever is not enrolled, or no more, and within the time that is left for a handshake.
    async fn refuse(&self, stream: &mut Stream, connection: &Connection) -> Result<(), NoSession> {
        connection.enter_to_be_refused();
        connection.ended_by(Reason::NotEnrolled);
        let (connect, _) = greeting(stream).await?;
        stream.write_all(&connect.refusal()?).await?;
        stream.shutdown().await?;
        Err(NoSession::NotEnrolled)
    }
}

/// The client's CONNECT and what it sent right after it. Its time is limited by the connection's phase.
async fn greeting(stream: &mut Stream) -> Result<(Connect, BytesMut), NoSession> {
    let (mut greeting, mut read) = (Greeting::default(), BytesMut::with_capacity(512));
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(connect) = greeting.read(&mut read)? {
            return Ok((connect, read));
        }
    }
}

/// Carries bytes until one side ends; the broker then has a moment for its last ones, and when it has ended
/// the session, the client hears what `why` says of it.
async fn between<'a>(stream: &mut Stream, mut broker: TcpStream, why: impl Fn() -> &'a [u8]) {
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let (mut from_broker, mut to_broker) = broker.split();
    let mut up = std::pin::pin!(async {
        let _ = tokio::io::copy(&mut from_client, &mut to_broker).await;
        let _ = to_broker.shutdown().await;
    });
    let mut down = std::pin::pin!(async {
        let _ = tokio::io::copy(&mut from_broker, &mut to_client).await;
        let _ = to_client.write_all(why()).await;
        let _ = to_client.shutdown().await;
    });
    // Cancel-safe: when the broker has ended the session, what the client still sends is for nobody.
    tokio::select! {
        () = up.as_mut() => drop(tokio::time::timeout(LAST_WORDS, down).await),
        () = down.as_mut() => {}
    }
}
