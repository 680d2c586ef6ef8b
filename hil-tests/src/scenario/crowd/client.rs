//! Clients that are no program of ours: one that is silent at a chosen place, and one that floods.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a client waits before it opens what the hub has closed.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the slow one sends a byte.
const DRIP: Duration = Duration::from_secs(1);

/// The hub's listeners.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listeners {
    pub admin: SocketAddr,
    pub device: SocketAddr,
    pub mqtt: SocketAddr,
}

/// A place to be silent at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Silence {
    /// Connected, on any of the three listeners.
    Connected,
    /// Within the TLS handshake.
    HalfHandshake,
    /// After the TLS handshake, without a request.
    NoRequest,
    /// Within a request's header.
    HalfHeader,
    /// Within a request's header, of which a byte comes every second.
    SlowHeader,
    /// Within a request's body.
    HalfBody,
    /// After a request that was answered.
    KeepAlive,
    /// After the TLS handshake with a device's certificate, without a CONNECT.
    NoConnect,
}

impl Silence {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Connected,
        Self::HalfHandshake,
        Self::NoRequest,
        Self::HalfHeader,
        Self::SlowHeader,
        Self::HalfBody,
        Self::KeepAlive,
        Self::NoConnect,
    ];

    fn address(self, listeners: &Listeners, number: usize) -> SocketAddr {
        match self {
            Self::Connected | Self::HalfHandshake => {
                [listeners.admin, listeners.device, listeners.mqtt][number % 3]
            }
            Self::NoRequest => [listeners.admin, listeners.device][number % 2],
            Self::NoConnect => listeners.mqtt,
            _ => listeners.admin,
        }
    }

    fn words(self) -> &'static [u8] {
        match self {
            Self::HalfHeader | Self::SlowHeader => {
                b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
            }
            Self::HalfBody => {
                b"POST /enrol HTTP/1.1\r\nHost: localhost\r\n\
                  Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            }
            Self::KeepAlive => b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            _ => b"",
        }
    }
}

/// A device's TLS configuration, out of its files; and the same without its certificate.
pub(super) fn tls(identity: &Path) -> Result<[Arc<ClientConfig>; 2]> {
    let cannot = || format!("cannot use the identity in {}", identity.display());
    let file = |name: &str| identity.join(name);
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(file("ca.pem")).with_context(cannot)?;
    roots.add(ca).with_context(cannot)?;
    let chain = CertificateDer::pem_file_iter(file("certificate.pem"))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(cannot)?;
    let key = PrivateKeyDer::from_pem_file(file("tls.key")).with_context(cannot)?;
    let naked = ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
    let shown = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .with_context(cannot)?;
    Ok([Arc::new(shown), Arc::new(naked)])
}

async fn handshake(stream: TcpStream, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").context("localhost is no name")?;
    Ok(TlsConnector::from(tls).connect(name, stream).await?)
}

/// One of a crowd.
#[derive(Clone)]
pub(super) struct Silent {
    pub silence: Silence,
    pub number: usize,
    pub listeners: Listeners,
    pub with_certificate: Arc<ClientConfig>,
    pub without: Arc<ClientConfig>,
    /// Counts connections that the hub closed.
    pub closed: Arc<AtomicU64>,
}

impl Silent {
    /// Connects, is silent until the hub ends it, and comes again; for ever.
    pub(super) async fn run(self) {
        loop {
            // Whatever goes wrong is the hub's way of ending it.
            let _ = self.once().await;
            self.closed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn once(&self) -> Result<()> {
        let socket = TcpSocket::new_v4()?;
        // Half of the crowd shares the address of the devices and of whoever looks at the page.
        let host = if self.number.is_multiple_of(2) { 1 } else { 2 + (self.number % 20) as u8 };
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)))?;
        let address = self.silence.address(&self.listeners, self.number);
        let mut stream = socket.connect(address).await?;
        match self.silence {
            Silence::Connected => return self.wait(stream).await,
            Silence::HalfHandshake => {
                // The beginning of a TLS record of 500 bytes.
                stream.write_all(&[22, 3, 1, 1, 0xf4, 1]).await?;
                return self.wait(stream).await;
            }
            _ => {}
        }
        let tls = match self.silence {
            Silence::NoConnect => &self.with_certificate,
            _ => &self.without,
        };
        let mut stream = handshake(stream, Arc::clone(tls)).await?;
        stream.write_all(self.silence.words()).await?;
        self.wait(stream).await
    }

    async fn wait(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
        let mut answer = [0; 512];
        loop {
            match tokio::time::timeout(DRIP, stream.read(&mut answer)).await {
                Ok(read) => ensure!(read? > 0, "closed"),
                Err(_) if self.silence == Silence::SlowHeader => {
                    stream.write_all(b"x").await?;
                    stream.flush().await?;
                }
                Err(_) => {}
            }
        }
    }
}

/// A device that sends as much as it can, of no use to anybody; how many messages it has sent is
/// counted. It comes again when it is thrown out.
pub(super) async fn flood(
    address: SocketAddr,
    device: String,
    tls: Arc<ClientConfig>,
    sent: Arc<AtomicU64>,
) {
    loop {
        let _ = flood_once(address, &device, Arc::clone(&tls), &sent).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn flood_once(
    address: SocketAddr,
    device: &str,
    tls: Arc<ClientConfig>,
    sent: &AtomicU64,
) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = handshake(stream, tls).await?;
    // CONNECT of MQTT 3.1.1: clean session, no keep-alive.
    let mut connect = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    text(&mut connect, device);
    stream.write_all(&packet(0x10, &connect)).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == [0x20, 2, 0, 0], "the flood was not let in: {answer:?}");
    let (mut read, mut write) = tokio::io::split(stream);
    // Acknowledgements are read and thrown away.
    let reading = async {
        let mut answers = [0; 4096];
        while read.read(&mut answers).await? > 0 {}
        anyhow::bail!("closed")
    };
    let writing = async {
        for number in (1..=u16::MAX).cycle() {
            let mut publish = Vec::new();
            text(&mut publish, &format!("fleetloop/v1/device/{device}/sample"));
            publish.extend(number.to_be_bytes());
            publish.extend([0x5a; 4000]);
            // PUBLISH at QoS 1.
            write.write_all(&packet(0x32, &publish)).await?;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<(), anyhow::Error>(())
    };
    // Cancel-safe: the connection ends with either.
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u16).to_be_bytes());
    to.extend(text.as_bytes());
}

fn packet(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut left = content.len();
    loop {
        let more = if left > 127 { 0x80 } else { 0 };
        packet.push((left % 128) as u8 | more);
        left /= 128;
        if left == 0 {
            break;
        }
    }
    packet.extend(content);
    packet
}
