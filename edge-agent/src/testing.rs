//! A small hub for tests: a CA made in the test, two real TLS listeners, and faults on demand.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use base64::Engine as _;
use fleetloop_protocol::enrol::{EnrolRequest, EnrolResponse, proof_message};
use fleetloop_protocol::keys::PublicKey;
use fleetloop_protocol::renew::{RENEW_PATH, RenewRequest, RenewResponse, renew_message};
use fleetloop_protocol::sample::commitment;
use fleetloop_protocol::time::HubTime;
use fleetloop_protocol::token::EnrolmentToken;
use fleetloop_protocol::upload::SALT_HEADER;
use fleetloop_protocol::{Digest, UnixMillis};
use futures::StreamExt as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::clock::{Clock, ManualTime};
use crate::update::tuf::testing::NOW;

/// The secret of the tests' token.
pub(crate) const SECRET: [u8; 32] = [7; 32];

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.0.as_ref().der())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    /// A server's configuration for `localhost`; with `mutual` a client certificate is asked for.
    fn server(&self, mutual: bool) -> rustls::ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2025, 12, 1);
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let chain = vec![leaf.der().clone(), self.0.as_ref().der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.as_ref().der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.allow_unauthenticated().build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        builder.with_single_cert(chain, key).unwrap()
    }

    fn sign(&self, csr_pem: &str, name: &str) -> String {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        csr.params.distinguished_name.push(DnType::CommonName, name);
        csr.params.not_before = rcgen::date_time_ymd(2025, 12, 1);
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        csr.signed_by(&self.0).unwrap().pem()
    }
}

/// What the hub has, and what goes wrong with it.
#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) root_json: Vec<u8>,
    pub(crate) tuf: BTreeMap<String, Vec<u8>>,
    pub(crate) artefacts: BTreeMap<Digest, Vec<u8>>,
    pub(crate) now: Option<UnixMillis>,
    /// The next enrolment or renewal is carried out and its answer lost.
    pub(crate) lose_reply: bool,
    /// The answer names another CA, or certifies another key.
    pub(crate) answer_ca: Option<String>,
    pub(crate) answer_csr: Option<String>,
    /// The next certificates are another CA's.
    pub(crate) answer_by: Option<Ca>,
    /// Nobody's certificate is renewed.
    pub(crate) refuses: bool,
    /// The next artefact answers break after so many bytes, one entry an answer.
    pub(crate) cut_after: Vec<usize>,
    /// Payloads that were uploaded, by commitment.
    pub(crate) uploads: BTreeMap<Digest, Vec<u8>>,
    /// What goes wrong with the next uploads, one entry an upload.
    pub(crate) upload_faults: Vec<UploadFault>,
    /// Artefacts whose answer begins and never goes on.
    pub(crate) hanging: Vec<Digest>,
    /// What was asked for, in order, with the range.
    pub(crate) asked: Vec<(String, Option<String>)>,
    pub(crate) enrolled: Vec<(PublicKey, Vec<u8>)>,
}

/// What goes wrong with an upload.
#[derive(Debug, Clone, Copy)]
pub(crate) enum UploadFault {
    /// So many bytes are read; then this is answered and the connection closed.
    Answer(usize, StatusCode),
    /// So many bytes are read, and then nothing.
    Stall(usize),
}

/// A running hub.
#[derive(Clone)]
pub(crate) struct TestHub {
    pub(crate) ca: Arc<Ca>,
    inner: Arc<Mutex<Inner>>,
    enrol_port: u16,
    device_port: u16,
}

impl TestHub {
    pub(crate) async fn start(root_json: Vec<u8>) -> Self {
        let ca = Arc::new(Ca::new());
        let bind = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let port = listener.local_addr().unwrap().port();
            (listener, port)
        };
        let ((enrol, enrol_port), (device, device_port)) = (bind(), bind());
        let inner = Arc::new(Mutex::new(Inner { root_json, ..Inner::default() }));
        let hub = Self { ca, inner, enrol_port, device_port };
        let routes = Router::new()
            .route("/enrol/root.json", get(root))
            .route("/enrol", post(enrolment))
            .with_state(hub.clone());
        serve(enrol, hub.ca.server(false), routes);
        let routes = Router::new()
            .route("/time", get(time))
            .route(RENEW_PATH, post(renewal))
            .route("/tuf/dev/{file}", get(metadata))
            .route("/artefacts/{digest}", get(artefact))
            .route("/payloads/{commitment}", put(upload).head(has_upload))
            .with_state(hub.clone());
        serve(device, hub.ca.server(true), routes);
        hub
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn token(&self) -> EnrolmentToken {
        EnrolmentToken {
            hub: format!("https://localhost:{}", self.enrol_port),
            secret: SECRET,
            ca: self.ca.digest(),
            root: Digest::of(&self.lock().root_json),
        }
    }

    pub(crate) fn add_artefact(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.lock().artefacts.insert(digest, bytes.to_vec());
        digest
    }

    /// The paths asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.lock().asked)
    }
}

/// A clock at the tests' time that nobody has synced.
pub(crate) fn clock() -> (Clock, ManualTime) {
    crate::tls::install_provider();
    Clock::manual(NOW)
}

fn serve(listener: TcpListener, config: rustls::ServerConfig, routes: Router) {
    let config = RustlsConfig::from_config(Arc::new(config));
    let server = axum_server::from_tcp_rustls(listener, config).unwrap();
    tokio::spawn(server.serve(routes.into_make_service()));
}

async fn root(State(hub): State<TestHub>) -> Vec<u8> {
    let mut inner = hub.lock();
    inner.asked.push(("/enrol/root.json".into(), None));
    inner.root_json.clone()
}

/// The hub's rules of enrolment: a token is bound to the first two keys that use it.
async fn enrolment(State(hub): State<TestHub>, Json(request): Json<EnrolRequest>) -> Response {
    let mut inner = hub.lock();
    inner.asked.push(("/enrol".into(), None));
    let csr = CertificateSigningRequestParams::from_pem(&request.csr_pem).unwrap();
    let proof = base64::engine::general_purpose::STANDARD.decode(&request.proof).unwrap();
    assert!(request.signing_key.verifies(&proof_message(&SECRET, &request.csr_pem), &proof));
    let keys = (request.signing_key, rcgen::PublicKeyData::der_bytes(&csr.public_key).to_vec());
    match inner.enrolled.first() {
        None => inner.enrolled.push(keys),
        Some(first) if *first == keys => {}
        Some(_) => return (StatusCode::CONFLICT, "the token is used").into_response(),
    }
    if std::mem::take(&mut inner.lose_reply) {
        return broken(vec![]);
    }
    let csr_pem = inner.answer_csr.as_ref().unwrap_or(&request.csr_pem);
    let certificate = hub.ca.sign(csr_pem, "dev-test");
    let ca_pem = inner.answer_ca.clone().unwrap_or_else(|| hub.ca.pem());
    Json(EnrolResponse {
        device: "dev-test".parse().unwrap(),
        certificate_pem: format!("{certificate}{}", hub.ca.pem()),
        ca_pem,
        mqtt_host: "localhost".into(),
        mqtt_port: 1,
        device_url: format!("https://localhost:{}", hub.device_port),
        channel: "dev".into(),
    })
    .into_response()
}

/// The hub's rules of renewal: the enrolled key signs.
async fn renewal(State(hub): State<TestHub>, Json(request): Json<RenewRequest>) -> Response {
    let mut inner = hub.lock();
    inner.asked.push((RENEW_PATH.into(), None));
    let proof = base64::engine::general_purpose::STANDARD.decode(&request.proof).unwrap();
    let message = renew_message(&request.device, &request.csr_pem);
    if inner.refuses || !inner.enrolled[0].0.verifies(&message, &proof) {
        return (StatusCode::FORBIDDEN, "not enrolled").into_response();
    }
    if std::mem::take(&mut inner.lose_reply) {
        return broken(vec![]);
    }
    let csr_pem = inner.answer_csr.as_ref().unwrap_or(&request.csr_pem);
    let ca = inner.answer_by.as_ref().unwrap_or(&hub.ca);
    let certificate_pem = ca.sign(csr_pem, request.device.as_str()) + &hub.ca.pem();
    Json(RenewResponse { certificate_pem }).into_response()
}

async fn time(State(hub): State<TestHub>) -> Json<HubTime> {
    Json(HubTime { now_ms: hub.lock().now.unwrap_or(NOW) })
}

async fn has_upload(State(hub): State<TestHub>, Path(named): Path<Digest>) -> StatusCode {
    let mut inner = hub.lock();
    inner.asked.push((format!("HEAD /payloads/{named}"), None));
    if inner.uploads.contains_key(&named) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn upload(
    State(hub): State<TestHub>,
    Path(named): Path<Digest>,
    headers: HeaderMap,
    body: Body,
) -> StatusCode {
    let fault = {
        let mut inner = hub.lock();
        inner.asked.push((format!("PUT /payloads/{named}"), None));
        (!inner.upload_faults.is_empty()).then(|| inner.upload_faults.remove(0))
    };
    let limit = match fault {
        None => usize::MAX,
        Some(UploadFault::Answer(limit, _) | UploadFault::Stall(limit)) => limit,
    };
    let (mut pieces, mut payload) = (body.into_data_stream(), Vec::new());
    while payload.len() < limit
        && let Some(piece) = pieces.next().await
    {
        payload.extend_from_slice(&piece.unwrap());
    }
    match fault {
        None => {}
        Some(UploadFault::Answer(_, status)) => return status,
        Some(UploadFault::Stall(_)) => return std::future::pending().await,
    }
    let salt = headers[SALT_HEADER].to_str().unwrap();
    assert_eq!(commitment(&fleetloop_protocol::upload::salt(salt).unwrap(), &payload), named);
    hub.lock().uploads.insert(named, payload);
    StatusCode::NO_CONTENT
}

async fn metadata(State(hub): State<TestHub>, Path(file): Path<String>) -> Response {
    let mut inner = hub.lock();
    inner.asked.push((format!("/tuf/dev/{file}"), None));
    match inner.tuf.get(&file) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn artefact(
    State(hub): State<TestHub>,
    Path(digest): Path<Digest>,
    headers: HeaderMap,
) -> Response {
    let mut inner = hub.lock();
    let range = headers.get(header::RANGE).map(|value| value.to_str().unwrap().to_owned());
    inner.asked.push((format!("/artefacts/{digest}"), range.clone()));
    let Some(bytes) = inner.artefacts.get(&digest).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let from = range.as_deref().map_or(0, |range| {
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    let rest = bytes[from..].to_vec();
    let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    if inner.hanging.contains(&digest) {
        let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]);
        return Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
            .into_response();
    }
    if inner.cut_after.is_empty() {
        return (status, rest).into_response();
    }
    let cut = inner.cut_after.remove(0).min(rest.len());
    let mut response = broken(rest[..cut].to_vec());
    *response.status_mut() = status;
    response
}

/// An answer that breaks after `bytes`.
fn broken(bytes: Vec<u8>) -> Response {
    let first = futures::stream::iter([Ok(Bytes::from(bytes))]);
    let cut = futures::stream::once(async {
        // The server sends what it has when the body makes it wait.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        Err(std::io::Error::other("cut by the test"))
    });
    Body::from_stream(futures::StreamExt::chain(first, cut)).into_response()
}
