//! Clients that open connections and say nothing, or not enough: the hub lets them go, and they keep
//! nobody out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet_hub::clock::Clock;
use fleet_hub::listeners::gate::book::{ListenerKind, Reason};
use fleet_hub::listeners::gate::limits::ConnectionLimits;
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::topic::{Kind, Topic};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, pki_types};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::device::{Device, Mqtt, PATIENCE};
use crate::rig::Rig;

/// A way to be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// After connecting.
    Tcp(ListenerKind),
    /// Within the TLS handshake.
    Handshake(ListenerKind),
    /// After it.
    Tls(ListenerKind),
    /// Within a request's header.
    Header,
    /// The same, but a byte comes now and then.
    Drip,
    /// Within a request's body.
    Body,
    /// After a request that was answered.
    KeepAlive,
    /// After the TLS handshake with a device's certificate, where a CONNECT belongs.
    Connect,
}

impl Silence {
    const ALL: [Self; 12] = [
        Self::Tcp(ListenerKind::Admin),
        Self::Tcp(ListenerKind::Device),
        Self::Tcp(ListenerKind::Mqtt),
        Self::Handshake(ListenerKind::Admin),
        Self::Handshake(ListenerKind::Mqtt),
        Self::Tls(ListenerKind::Admin),
        Self::Tls(ListenerKind::Device),
        Self::Header,
        Self::Drip,
        Self::Body,
        Self::KeepAlive,
        Self::Connect,
    ];

    fn listener(self) -> ListenerKind {
        match self {
            Self::Tcp(listener) | Self::Handshake(listener) | Self::Tls(listener) => listener,
            Self::Header | Self::Drip | Self::Body | Self::KeepAlive => ListenerKind::Admin,
            Self::Connect => ListenerKind::Mqtt,
        }
    }

    fn ends_by(self) -> Reason {
        match self {
            Self::Tcp(_) | Self::Handshake(_) => Reason::Handshake,
            Self::Tls(_) | Self::Header | Self::Drip => Reason::Header,
            Self::Body => Reason::Body,
            Self::KeepAlive => Reason::KeepAlive,
            Self::Connect => Reason::Connect,
        }
    }

    /// What is said before the silence, over TLS.
    fn words(self) -> &'static str {
        match self {
            Self::Header | Self::Drip => "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
            Self::Body => {
                "POST /enrol HTTP/1.1\r\nHost: localhost\r\n\
                 Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            }
            Self::KeepAlive => "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            _ => "",
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn tcp(rig: &Rig, listener: ListenerKind, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(address(rig, listener)).await
}

fn address(rig: &Rig, listener: ListenerKind) -> SocketAddr {
    match listener {
        ListenerKind::Admin => rig.config.admin_listen,
        ListenerKind::Device => rig.config.device_listen,
        ListenerKind::Mqtt => rig.config.mqtt_listen,
    }
}

async fn tls(
    stream: TcpStream,
    config: ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Opens a connection from that address and says what comes before the silence.
async fn open(
    rig: &Rig,
    silence: Silence,
    device: &Device,
    from: Ipv4Addr,
) -> std::io::Result<Box<dyn Stream>> {
    let mut stream = tcp(rig, silence.listener(), from).await?;
    match silence {
        Silence::Tcp(_) => return Ok(Box::new(stream)),
        Silence::Handshake(_) => {
            // The beginning of a TLS record of 500 bytes.
            stream.write_all(&[22, 3, 1, 1, 0xf4, 1]).await?;
            return Ok(Box::new(stream));
        }
        _ => {}
    }
    let config = match silence {
        Silence::Connect => device.tls(),
        _ => device.tls_without_certificate(),
    };
    let mut stream = tls(stream, config).await?;
    stream.write_all(silence.words().as_bytes()).await?;
    Ok(Box::new(stream))
}

/// Waits until the hub ends the connection; a drip goes on meanwhile.
async fn ends(mut stream: Box<dyn Stream>, silence: Silence) {
    let waiting = async {
        let mut answer = [0; 1024];
        loop {
            let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut answer));
            match read.await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => {}
                Err(_) if silence == Silence::Drip => {
                    if stream.write_all(b"x").await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
                Err(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the hub keeps a silent connection");
}

fn closed(rig: &Rig, listener: ListenerKind, reason: Reason) -> u64 {
    rig.state().vitals.gate.closed().get(&(listener, reason)).copied().unwrap_or_default()
}

/// Room for few, and so much time that none of it ends a connection.
fn room_for_few(limits: &mut ConnectionLimits) {
    let s = 600;
    *limits = ConnectionLimits {
        unauthenticated: 24,
        unauthenticated_per_listener: 12,
        unauthenticated_per_address: 8,
        handshake_s: s,
        header_s: s,
        body_silence_s: s,
        keep_alive_s: s,
        connect_s: s,
        ..ConnectionLimits::default()
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silent_where_it_should_speak_is_closed_and_counted() {
    let rig = Rig::start_with(|config| {
        config.limits.connections = ConnectionLimits {
            handshake_s: 1,
            header_s: 1,
            body_silence_s: 1,
            keep_alive_s: 1,
            connect_s: 1,
            ..ConnectionLimits::default()
        };
    })
    .await;
    // Enrolling may take longer than a second on a busy machine, and is tried again.
    let device = rig.enrol_patiently().await;
    for silence in Silence::ALL {
        let begun = Instant::now();
        let before = closed(&rig, silence.listener(), silence.ends_by());
        // A handshake that took more than its second is no silence of the kind that is meant.
        while closed(&rig, silence.listener(), silence.ends_by()) == before {
            assert!(begun.elapsed() < PATIENCE, "{silence:?}");
            if let Ok(stream) = open(&rig, silence, &device, Ipv4Addr::LOCALHOST).await {
                ends(stream, silence).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_crowd_keeps_out_neither_devices_nor_people() {
    let rig = Rig::start_with(|config| room_for_few(&mut config.limits.connections)).await;
    let (device, late) = (rig.enrol().await, rig.enrol().await);
    let mut session = device.connect(&rig).await;
    for from in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)] {
        for (at, silence) in Silence::ALL.into_iter().enumerate() {
            let mut crowd = Vec::new();
            for _ in 0..30 {
                // One that was closed before it had said all is as good.
                crowd.extend(open(&rig, silence, &device, from).await.ok());
            }
            let open: u64 = rig
                .state()
                .vitals
                .gate
                .open()
                .iter()
                .filter(|((_, holder, _), _)| *holder == "unauthenticated")
                .map(|(_, count)| count)
                .sum();
            assert!(open <= 24, "{open} {silence:?}");
            // Who works goes on; who comes, comes in, and so does whoever looks at the page.
            let topic = Topic::new(&device.id, Kind::Sample);
            let sequence = u64::from(from.octets()[3]) * 100 + at as u64;
            session.send(&topic, device.sample(sequence, b"x")).await;
            session.receipt(&device.id, &rig.receipt_keys()).await;
            drop(late.connect(&rig).await);
            let page = rig.http().get(rig.config.admin_url()).send().await.unwrap();
            assert!(page.status().is_success(), "{silence:?}");
            drop(crowd);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_too_many_connections_loses_its_own_oldest() {
    let rig = Rig::start_with(|config| config.limits.connections.per_device = 2).await;
    let (device, other) = (rig.enrol().await, rig.enrol().await);
    let quiet = open(&rig, Silence::Connect, &other, Ipv4Addr::LOCALHOST).await.unwrap();
    let first = open(&rig, Silence::Connect, &device, Ipv4Addr::LOCALHOST).await.unwrap();
    let mut more = Vec::new();
    for _ in 0..2 {
        more.push(open(&rig, Silence::Connect, &device, Ipv4Addr::LOCALHOST).await.unwrap());
    }
    ends(first, Silence::Connect).await;
    assert_eq!(closed(&rig, ListenerKind::Mqtt, Reason::Device), 1);
    drop((quiet, more));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_that_never_says_connect_is_refused_within_the_handshakes_time() {
    let rig = Rig::start_with(|config| {
        let limits = &mut config.limits.connections;
        (limits.handshake_s, limits.connect_s) = (5, 3600);
    })
    .await;
    let device = rig.enrol_patiently().await;
    rig.revoke(&device.id).await;
    while closed(&rig, ListenerKind::Mqtt, Reason::NotEnrolled) == 0 {
        let opened = open(&rig, Silence::Connect, &device, Ipv4Addr::LOCALHOST).await;
        if let Ok(stream) = opened {
            ends(stream, Silence::Connect).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_the_hubs_secret_gets_a_session_at_the_brokers_private_port() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let private = rig.hub.as_ref().unwrap().broker().unwrap().private();
    assert!(private.ip().is_loopback());
    for (name, password) in [(device.id.as_str(), ""), (device.id.as_str(), "guess"), ("hub", "x")]
    {
        let connect = rmqtt::codec::v5::Connect::default().client_id(name.to_owned());
        let connect = fleet_hub::broker::greeting::Connect::V5(Box::new(connect));
        let mut stream = TcpStream::connect(private).await.unwrap();
        stream.write_all(&connect.introduced(name, password).unwrap()).await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        // CONNACK, no session, not authorised.
        assert_eq!((answer[0], answer[2], answer[3]), (0x20, 0, 0x87), "{name} {password}");
    }
    // The same client id comes in by the road that proves it.
    drop(device.connect(&rig).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_shown_everywhere_without_a_restart() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let now = Clock::system().now();
    let clock = Clock::manual(now);
    let rig = Rig::start_at(clock.clone(), |_| {}).await;
    let device = rig.enrol().await;
    let listeners = [ListenerKind::Admin, ListenerKind::Device, ListenerKind::Mqtt];
    let mut before = Vec::new();
    for listener in listeners {
        before.push(shown(&rig, listener, &device).await);
    }
    let hub = rig.hub.as_ref().unwrap();
    assert!(!hub.renew_own_certificates().unwrap());
    clock.set(UnixMillis(now.0 + 500 * DAY_MS));
    assert!(hub.renew_own_certificates().unwrap());
    for (listener, before) in listeners.into_iter().zip(before) {
        assert_ne!(shown(&rig, listener, &device).await, before, "{listener:?}");
    }
    // The hub's own client, whose first certificate has ended, comes back when it is thrown out.
    clock.set(UnixMillis(now.0 + 800 * DAY_MS));
    let connected = || *rig.state().vitals.connected.borrow();
    let pki = fleet_hub::pki::Pki::load(&rig.config.paths).unwrap();
    let (other, _) = fleet_hub::pki::tls::hub_client(&pki).unwrap();
    drop(Mqtt::open(&rig, fleet_hub::pki::HUB_CLIENT, other, None).await.unwrap());
    let begun = Instant::now();
    for wanted in [false, true] {
        while connected() != wanted {
            assert!(begun.elapsed() < PATIENCE, "{wanted}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The certificate that a listener shows.
async fn shown(
    rig: &Rig,
    listener: ListenerKind,
    device: &Device,
) -> pki_types::CertificateDer<'static> {
    let stream = tcp(rig, listener, Ipv4Addr::LOCALHOST).await.unwrap();
    let stream = tls(stream, device.tls()).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}
