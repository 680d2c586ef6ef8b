//! A hub for tests: the real store in a temporary folder, the real router, tokens of each role, and
//! devices that really sign.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_protocol::api::imports::{ImportRequest, Imported, Picture, Pictures, Taken};
use fleetloop_protocol::api::{ApiError, Role, datasets::Split};
use fleetloop_protocol::gap::Gap;
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::sample::{
    MediaType, Payload, Prediction, SampleHeader, SampleMessage, Selection, VerifiedSample,
    commitment,
};
use fleetloop_protocol::{
    BundleDigest, ClockState, DeviceId, Digest, Epoch, SampleId, Sequence, Signed, UnixMillis,
    Verified, wire,
};
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

use crate::AppState;
use crate::clock::Clock;
use crate::config::Config;
use crate::door::{self, Watch};
use crate::listeners::gate::Gate;
use crate::quota::Quotas;
use crate::state::{DesiredPublisher, EVENTS};
use crate::status::Vitals;
use crate::store::devices::{self, NewDevice, NewToken};
use crate::store::payloads::Blobs;
use crate::store::uploads::Uploads;
use crate::store::{Store, ingest, labels, tokens};

/// When tests happen.
pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A hub in a temporary folder.
pub(crate) struct Hub {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) state: AppState,
    pub(crate) admin: String,
    pub(crate) annotator: String,
    pub(crate) worker: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body of an answer that must be 2xx.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        assert!(self.status.is_success(), "{}: {:?}", self.status, self.body);
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The error of an answer that must have `status`.
    pub(crate) fn error(&self, status: u16) -> ApiError {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }
}

fn state(dir: &Path, change: impl FnOnce(&mut Config)) -> AppState {
    let text = "hosts = [\"localhost\"]\nadmin_listen = \"127.0.0.1:8443\"\n\
        device_listen = \"127.0.0.1:8444\"\nmqtt_listen = \"127.0.0.1:8883\"\n\
        [limits]\ndisk_floor_bytes = 0\nartefact_bytes = 100000\n";
    std::fs::File::create(dir.join("hub.toml"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .unwrap();
    let mut config = Config::load(dir).unwrap();
    change(&mut config);
    let (desired, _) = DesiredPublisher::channel();
    let payloads = Blobs::open("payload", &config.paths.payloads(), 0).unwrap();
    let vitals =
        Vitals::new(config.limits.backlog_messages, Gate::new(1024, &config.limits.connections));
    let pki = crate::pki::Pki::create(&config, NOW).unwrap().shared();
    let quotas = Quotas::new(&config.limits);
    AppState {
        pki,
        quotas,
        store: Store::open(dir).unwrap(),
        uploads: Uploads::open(&config.paths.uploads(), &config.limits, payloads.clone()).unwrap(),
        payloads,
        artefacts: Blobs::open("artefact", &config.paths.artefacts(), 0).unwrap(),
        config: Arc::new(config),
        clock: Clock::manual(NOW),
        watch: Watch::default(),
        last_use: crate::last_use::LastUse::default(),
        events: tokio::sync::broadcast::channel(EVENTS).0,
        desired,
        stopping: tokio::sync::watch::channel(false).1,
        vitals,
    }
}

impl Hub {
    /// A hub that knows the labels `boot`, `bag` and `coat`.
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// The same with a configuration that was changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = state(dir.path(), change);
        let [admin, annotator, worker] = state
            .store
            .write(|tx| {
                let set = ["boot", "bag", "coat"].map(str::to_owned).to_vec();
                labels::extend(
                    tx,
                    &fleetloop_protocol::api::labels::LabelSet { labels: set },
                    "t",
                )?;
                Ok([
                    tokens::create(tx, "alice", Role::Admin, "t", NOW)?,
                    tokens::create(tx, "anna", Role::Annotator, "t", NOW)?,
                    tokens::create(tx, "worker", Role::Worker, "t", NOW)?,
                ])
            })
            .await
            .unwrap();
        Self { dir, state, admin, annotator, worker }
    }

    /// Sends a request through the router and what comes before it.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Answer {
        let host = axum::http::HeaderValue::from_static("localhost:8443");
        request.headers_mut().entry("host").or_insert(host);
        let router = door::before(super::router(self.state.clone()), &self.state)
            .layer(axum::middleware::from_fn(door::headers::add));
        let response = router.oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { status, headers, body }
    }

    /// Asks with a token.
    pub(crate) async fn ask(&self, method: Method, token: &str, path: &str, body: Body) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        self.send(request).await
    }

    /// `GET` as the admin.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, &self.admin, path, Body::empty()).await
    }

    /// `POST` as the admin.
    pub(crate) async fn post(&self, path: &str, body: &impl serde::Serialize) -> Answer {
        let body = Body::from(serde_json::to_vec(body).unwrap());
        self.ask(Method::POST, &self.admin, path, body).await
    }

    /// Sends pictures and imports them.
    pub(crate) async fn imports(
        &self,
        split: Split,
        source: &str,
        pictures: &[(Vec<u8>, &str)],
    ) -> Imported {
        let items = pictures.iter().map(|(bytes, _)| sent(bytes, MediaType::Png)).collect();
        let taken: Taken = self.post("/api/v1/imports/pictures", &Pictures { items }).await.json();
        assert_eq!(taken, Taken::default());
        self.post("/api/v1/imports", &import(split, source, pictures)).await.json()
    }

    /// Imports one picture for each label, shades from `first` on.
    pub(crate) async fn import(&self, split: Split, first: u8, names: &[&str]) -> Imported {
        let pictures: Vec<_> =
            names.iter().zip(first..).map(|(label, shade)| (picture(shade), *label)).collect();
        self.imports(split, "test pictures", &pictures).await
    }

    /// Enrols a device of that id and name, below HTTP.
    pub(crate) async fn device(&self, id: &str, name: &str) -> Device {
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let id: DeviceId = id.parse().unwrap();
        let new = NewDevice {
            id: id.clone(),
            signing_key: key.public(),
            certificate_pem: String::new(),
            certificate_ends: NOW,
            agent_version: "0.1.0".into(),
            secret_sha256: Digest::of(id.as_str().as_bytes()),
            keys_sha256: Digest::of(b"keys"),
        };
        let name = name.to_owned();
        self.state
            .store
            .write(move |tx| {
                let expires_at = UnixMillis(NOW.0 + 1000);
                let secret_sha256 = new.secret_sha256;
                let token = NewToken { secret_sha256, name, replaces: None, expires_at };
                devices::add_token(tx, &token, "t", NOW)?;
                devices::add(tx, &new, NOW)
            })
            .await
            .unwrap();
        Device { id, key, epoch: Epoch(1), next: 0, head: Digest::ZERO }
    }

    /// Stores a sample as the ingest does: payload, then row. Returns its digest.
    pub(crate) async fn sample(
        &self,
        device: &mut Device,
        payload: &[u8],
        chosen: Selection,
    ) -> Digest {
        let sample = device.sign(payload, chosen);
        let digest = sample.header().body_digest();
        let name = Digest::of(payload);
        self.state.payloads.put(name, Bytes::copy_from_slice(payload)).await.unwrap();
        let now = self.state.clock.now();
        self.state
            .store
            .write(move |tx| {
                ingest::store_sample(tx, &sample, name, b"receipt", ingest::Via::Link, now)
            })
            .await
            .unwrap();
        digest
    }
}

/// A device that signs: a chain of headers, each naming the one before.
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    key: SigningKey,
    pub(crate) epoch: Epoch,
    next: u64,
    head: Digest,
}

impl Device {
    fn sign(&mut self, payload: &[u8], selection: Selection) -> VerifiedSample {
        let header = SampleHeader { selection, ..self.header(payload) };
        let sample = self.seal(&header, payload);
        self.next += 1;
        self.head = sample.header().body_digest();
        sample
    }

    /// The next header of the chain.
    pub(crate) fn header(&self, payload: &[u8]) -> SampleHeader {
        SampleHeader {
            id: SampleId {
                device: self.id.clone(),
                epoch: self.epoch,
                sequence: Sequence(self.next),
            },
            previous: self.head,
            captured_at: NOW,
            clock: ClockState::Synced,
            model: BundleDigest(Digest::of(b"model")),
            config: Digest::of(b"config"),
            media_type: MediaType::Png,
            payload_len: payload.len() as u32,
            commitment: commitment(&SALT, payload),
            selection: Selection::Random { rate: 0.5 },
            predictions: vec![Prediction { class: 1, probability: 0.6 }],
        }
    }

    /// A sample with that header, whatever it says.
    pub(crate) fn seal(&self, header: &SampleHeader, payload: &[u8]) -> VerifiedSample {
        let bytes = self.message(header, Payload::Inline(payload.to_vec()));
        let ring = [self.key.public()].into_iter().collect();
        VerifiedSample::open(&bytes, &self.id, &ring).unwrap()
    }

    /// The bytes of a sample with that header, as they travel.
    pub(crate) fn message(&self, header: &SampleHeader, payload: Payload) -> Vec<u8> {
        let signed = Signed::seal(header, &self.id, &self.key).unwrap();
        wire::encode(&SampleMessage::new(signed, SALT, payload)).unwrap()
    }

    /// A signed gap record.
    pub(crate) fn gap(&self, gap: &Gap) -> Verified<Gap> {
        let signed = Signed::seal(gap, &self.id, &self.key).unwrap();
        let ring = [self.key.public()].into_iter().collect();
        Verified::open(&signed.into_bytes(), &self.id, &ring).unwrap()
    }
}

/// What commitments are made with.
const SALT: [u8; 16] = [7; 16];

/// A small picture, another one for each `shade`.
pub(crate) fn picture(shade: u8) -> Vec<u8> {
    let frame = Frame::new(4, 4, Channels::Grey, vec![shade; 16]).unwrap();
    frame.encode_png().unwrap()
}

/// What a payload is sent as for an import.
pub(crate) fn sent(payload: &[u8], media_type: MediaType) -> Picture {
    use base64::Engine as _;
    Picture { payload: base64::engine::general_purpose::STANDARD.encode(payload), media_type }
}

/// An import of pictures with their labels; their payloads have to be sent before.
pub(crate) fn import(split: Split, source: &str, pictures: &[(Vec<u8>, &str)]) -> ImportRequest {
    let mut classes: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
    for (payload, label) in pictures {
        classes.entry((*label).to_owned()).or_default().push(Digest::of(payload));
    }
    ImportRequest { source: source.into(), split, classes }
}
