//! TLS to the hub: the CAs that are trusted are the one the enrolment token named or, once the hub
//! has published its addresses, those that the signed document names ([`crate::contacts`]).
//!
//! While a device enrols it knows the CA by SHA-256 only, so the hub presents it in its chain;
//! afterwards the device has the certificates. Either way the chain and the host name are verified
//! by webpki against those anchors, before a byte of the application is sent.
//!
//! The device shows its newest certificate to the broker and to the hub's device listener
//! ([`device_config`]), and none where the time is asked or a certificate is renewed
//! ([`anonymous_config`]): it cannot know whether its own has expired before it knows the time.
//! Whether its certificate is good, the hub judges.
//!
//! Time comes from the injected [`Clock`]. While the clock is a guess, the start of the presented
//! certificate's life counts as past: a device that wakes in 1970 must reach its hub to learn the
//! time. The end of its life is judged at a time that is certainly past, never at a guess; what
//! follows from a floor far behind or ahead is in [`crate::clock`].

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use fleetloop_protocol::{ClockState, Digest, UnixMillis};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::contacts::Contacts;
use crate::identity::{Identity, Life, TlsPair};

/// How long a TCP and TLS connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may be silent in the middle of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A TLS set-up that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Key and certificate do not fit, or rustls refuses them.
    #[error("cannot set up TLS for device {device}; enrol the device anew")]
    Config {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTPS client")]
    Client(#[source] reqwest::Error),
}

/// The hub presented a chain without the CA that is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hub's chain does not hold the CA with SHA-256 {expected}")]
pub struct WrongCa {
    /// The CA's digest that was expected.
    pub expected: Digest,
}

/// Makes aws-lc-rs the process's default provider: first thing in every `main` and test. Calling
/// it again changes nothing.
pub fn install_provider() {
    // An error says that a default is there already.
    aws_lc_rs::default_provider().install_default().ok();
}

/// TLS for a device that knows its hub's CA by digest only.
///
/// # Errors
/// [`TlsError::Config`].
pub fn enrolment_config(ca: Digest, clock: &Clock) -> Result<ClientConfig, TlsError> {
    let verifier = HubVerifier::new(Anchors::Pinned(ca), clock);
    let error = |source| TlsError::Config { device: "(enrolling)".into(), source };
    Ok(builder(verifier).map_err(error)?.with_no_client_auth())
}

/// Mutual TLS for an enrolled device: each connection shows the certificate that is the newest when
/// it begins.
///
/// # Errors
/// [`TlsError::Config`].
pub fn device_config(identity: &Identity, clock: &Clock) -> Result<ClientConfig, TlsError> {
    let newest = Arc::new(Newest(identity.tls()));
    Ok(enrolled(identity, clock)?.with_client_cert_resolver(newest))
}

/// TLS for an enrolled device that shows no certificate.
///
/// # Errors
/// [`TlsError::Config`].
pub fn anonymous_config(identity: &Identity, clock: &Clock) -> Result<ClientConfig, TlsError> {
    Ok(enrolled(identity, clock)?.with_no_client_auth())
}

fn enrolled(identity: &Identity, clock: &Clock) -> Result<WithVerifier, TlsError> {
    let verifier = HubVerifier::new(Anchors::Known(identity.contacts().clone()), clock);
    let error = |source| TlsError::Config { device: identity.device().to_string(), source };
    builder(verifier).map_err(error)
}

/// TLS that takes whoever answers for the hub, and shows no certificate. It is for one thing: release
/// metadata and the hub's addresses, whose signatures are the proof ([`crate::home`]).
///
/// # Errors
/// [`TlsError::Config`].
pub fn untrusted_config(clock: &Clock) -> Result<ClientConfig, TlsError> {
    let verifier = HubVerifier::new(Anchors::Anybody, clock);
    let error = |source| TlsError::Config { device: "(looking for its hub)".into(), source };
    Ok(builder(verifier).map_err(error)?.with_no_client_auth())
}

/// Shows the newest certificate.
#[derive(Debug)]
struct Newest(watch::Receiver<Arc<TlsPair>>);

impl ResolvesClientCert for Newest {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// An HTTPS client over `config`: no proxy, no redirects, a limit on silence and none on the
/// whole transfer, since a slow link is no error.
///
/// # Errors
/// [`TlsError::Client`].
pub fn http_client(config: ClientConfig) -> Result<reqwest::Client, TlsError> {
    client(config).read_timeout(IDLE_TIMEOUT).build().map_err(TlsError::Client)
}

/// The same for sending large bodies: it has no limit on silence, for the peer says nothing while
/// it listens. Whoever sends watches the progress.
///
/// # Errors
/// [`TlsError::Client`].
pub fn upload_client(config: ClientConfig) -> Result<reqwest::Client, TlsError> {
    client(config).build().map_err(TlsError::Client)
}

fn client(config: ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
}

/// The rustls error somewhere under `error`, if a failed handshake is the cause.
pub fn handshake_failure<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // `io::Error::source` skips the error it wraps.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Whether `error` says that the hub is not the one that is trusted.
pub fn is_wrong_ca(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            other.is::<WrongCa>()
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        _ => false,
    }
}

/// Whether `error` says that who answered is not known to be the hub: another CA, one that has ended,
/// another name.
pub fn is_unknown_hub(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_))
}

/// The start of a certificate's life; of one that cannot be read, the beginning of time.
fn not_before(certificate: &CertificateDer<'_>) -> UnixMillis {
    Life::of(certificate).map_or(UnixMillis(0), |life| life.not_before)
}

/// A rustls time.
pub(crate) fn unix_time(at: UnixMillis) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(at.0))
}

type WithVerifier = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn builder(verifier: HubVerifier) -> Result<WithVerifier, rustls::Error> {
    let provider = Arc::clone(&verifier.provider);
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

/// Whom a server's certificate must lead to.
enum Anchors {
    /// The presented certificate of that digest.
    Pinned(Digest),
    /// Any of the CAs that are known when the connection begins.
    Known(Contacts),
    /// Nobody: what comes is proven by its own signatures, or is worth nothing.
    Anybody,
}

struct HubVerifier {
    anchors: Anchors,
    clock: Clock,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for HubVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.anchors {
            Anchors::Pinned(ca) => write!(f, "HubVerifier({ca})"),
            Anchors::Known(contacts) => {
                write!(f, "HubVerifier(generation {})", contacts.known().generation)
            }
            Anchors::Anybody => f.write_str("HubVerifier(anybody)"),
        }
    }
}

impl HubVerifier {
    fn new(anchors: Anchors, clock: &Clock) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Self { anchors, clock: clock.clone(), provider }
    }

    /// The trusted CAs: those that are known or, while enrolling, the presented certificate whose
    /// digest the token names. None where nobody is asked for.
    fn anchors(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<Vec<CertificateDer<'static>>, rustls::Error> {
        match &self.anchors {
            Anchors::Known(contacts) => Ok(contacts.known().authorities.clone()),
            Anchors::Anybody => Ok(Vec::new()),
            Anchors::Pinned(ca) => {
                let found = chain.iter().find(|certificate| Digest::of(certificate) == *ca);
                found.map(|ca| vec![ca.clone().into_owned()]).ok_or_else(|| {
                    let error = OtherError(Arc::new(WrongCa { expected: *ca }));
                    rustls::Error::InvalidCertificate(CertificateError::Other(error))
                })
            }
        }
    }

    fn now(&self, leaf: &CertificateDer<'_>, cas: &[CertificateDer<'_>]) -> UnixTime {
        let past = self.clock.past();
        let cas = cas.iter().map(not_before).max().unwrap_or(past);
        unix_time(match self.clock.state() {
            ClockState::Synced => past,
            ClockState::Unsynced => past.max(not_before(leaf)).max(cas),
        })
    }
}

impl ServerCertVerifier for HubVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let cas = self.anchors(intermediates)?;
        if cas.is_empty() {
            return Ok(ServerCertVerified::assertion());
        }
        let now = self.now(end_entity, &cas);
        let mut roots = RootCertStore::empty();
        for ca in cas {
            roots.add(ca)?;
        }
        let webpki = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
        webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
