//! Enrolment: tokens out, devices in. The contract of the messages is
//! [`fleetloop_protocol::enrol`].
//!
//! Invariants: the hub keeps only the hash of a token's secret; a token lets in one pair of keys,
//! within its time; the same pair gets the same answer again, so a lost reply strands nobody; the
//! hub draws the device's id. Nothing but the secret is needed to ask, so everything in the request
//! is checked before anything is stored, its length is limited ([`crate::door::bodies`]), and a wrong
//! secret is counted ([`crate::door`]).

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use fleetloop_observe::text::has_hidden;
use fleetloop_protocol::api::ApiError;
use fleetloop_protocol::api::devices::TokenResponse;
use fleetloop_protocol::enrol::{
    ENROL_PATH, ENROL_ROOT_PATH, EnrolRequest, EnrolResponse, RootQuery, proof_message,
};
use fleetloop_protocol::keys::random_bytes;
use fleetloop_protocol::limits::TEXT_BYTES;
use fleetloop_protocol::token::EnrolmentToken;
use fleetloop_protocol::{DeviceId, Digest, UnixMillis};
use rcgen::PublicKeyData as _;
use std::sync::Arc;

use crate::api::extract;
use crate::door::events::Door;
use crate::door::{Asker, Later};
use crate::pki::{self, Pki, PkiError};
use crate::release::ReleaseError;
use crate::state::{AppState, HubEvent};
use crate::store::StoreError;
use crate::store::devices::{self, DeviceRow, NewDevice, NewToken};
use crate::store::replace;

/// The longest life of a token, in seconds: a day.
pub const TOKEN_MAX_S: u64 = 24 * 3600;

/// The channel that devices of this hub follow.
const CHANNEL: &str = "dev";

/// Why nobody was enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The request is wrong: what and how to mend it.
    #[error("{0}")]
    Request(String),
    /// The token is unknown, used or expired, or the database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key or certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The secret is wrong, and so were many before it.
    #[error("cannot enrol: the secret is wrong, and so were many from your address; try again in {} s", .0.seconds)]
    Later(Later),
    /// The chain of root metadata.
    #[error(transparent)]
    Release(#[from] ReleaseError),
}

/// Makes an enrolment token for a device that people call `name`, good for `valid_s` seconds (at
/// most a day), asked for by `who`. It is shown once: only its hash is kept.
///
/// # Errors
/// A name or time that cannot be; the database failed.
pub async fn new_token(
    state: &AppState,
    name: &str,
    valid_s: u64,
    who: &str,
) -> Result<TokenResponse, EnrolError> {
    make_token(state, name, None, valid_s, who).await
}

/// The same for a device that shall take the place of `old`; without a `name` it is called as that.
///
/// # Errors
/// As [`new_token`]; there is no device `old`, or another has taken its place.
pub async fn replacement_token(
    state: &AppState,
    old: &DeviceId,
    name: Option<&str>,
    valid_s: u64,
    who: &str,
) -> Result<TokenResponse, EnrolError> {
    let id = old.clone();
    let find = move |connection: &rusqlite::Connection| {
        replace::refuse_replaced(connection, &id)?;
        devices::get(connection, &id)
    };
    let found = state.store.read(find).await?;
    make_token(state, name.unwrap_or(&found.name), Some(old.clone()), valid_s, who).await
}

/// A name that people can call a device by.
///
/// # Errors
/// Why it cannot be one.
pub fn device_name(name: &str) -> Result<String, String> {
    if name.trim().is_empty() || name.len() > TEXT_BYTES || has_hidden(name) {
        return Err(format!(
            "cannot add a device: its name has 1 to {TEXT_BYTES} bytes, all of which can be seen"
        ));
    }
    Ok(name.to_owned())
}

async fn make_token(
    state: &AppState,
    name: &str,
    replaces: Option<DeviceId>,
    valid_s: u64,
    who: &str,
) -> Result<TokenResponse, EnrolError> {
    let name = device_name(name).map_err(EnrolError::Request)?;
    if valid_s == 0 || valid_s > TOKEN_MAX_S {
        return Err(EnrolError::Request(format!(
            "cannot make a token for {valid_s} s: choose 1 to {TOKEN_MAX_S}"
        )));
    }
    let secret = random_bytes::<32>()
        .map_err(|source| PkiError::Key { path: "enrolment secret".into(), source })?;
    let token = EnrolmentToken {
        hub: state.config.admin_url(),
        secret,
        ca: pki::ca_digest(&state.config.paths)?,
        root: root(state, None).await?.map_or(Digest::ZERO, |root| Digest::of(&root)),
    };
    let now = state.clock.now();
    let expires_at = UnixMillis(now.0.saturating_add(valid_s * 1000));
    let who = who.to_owned();
    let kept = NewToken { secret_sha256: Digest::of(&secret), name, replaces, expires_at };
    state.store.write(move |tx| devices::add_token(tx, &kept, &who, now)).await?;
    Ok(TokenResponse { token: token.to_string(), expires_at_ms: expires_at.0 })
}

/// The routes of the enrolment listener.
pub fn router(state: AppState, pki: Arc<Pki>) -> Router {
    Router::new()
        .route(ENROL_ROOT_PATH, get(serve_root))
        .route(ENROL_PATH, post(serve_enrol))
        .with_state((state, pki))
}

type Parts = (AppState, Arc<Pki>);

/// A token names the root that was the newest when it was made, so that one is served although a
/// newer one may follow from it.
async fn serve_root(
    State((state, _)): State<Parts>,
    Query(wanted): Query<RootQuery>,
) -> Result<Response, EnrolError> {
    let root = root(&state, wanted.sha256).await?.ok_or_else(|| {
        EnrolError::Request("cannot enrol: this hub has no root metadata of that digest".into())
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], root).into_response())
}

async fn serve_enrol(
    State((state, pki)): State<Parts>,
    asker: Asker,
    extract::Json(request): extract::Json<EnrolRequest>,
) -> Result<Json<EnrolResponse>, EnrolError> {
    match enrol(&state, &pki, &request).await {
        Err(error @ EnrolError::Store(StoreError::NotFound { .. })) => {
            state.watch.wrong(Door::Enrol, asker, None).await?;
            Err(error)
        }
        other => other.map(Json),
    }
}

/// Lets a device in.
///
/// # Errors
/// [`EnrolError`] says what is wrong with the request or its token.
pub async fn enrol(
    state: &AppState,
    pki: &Pki,
    request: &EnrolRequest,
) -> Result<EnrolResponse, EnrolError> {
    let (secret, keys_sha256) = check(request)?;
    let secret_sha256 = Digest::of(&secret);
    let now = state.clock.now();
    // Look before certifying: a wrong secret costs a look-up and no signature.
    state
        .store
        .read(move |connection| {
            devices::look_up_token(connection, secret_sha256, keys_sha256, now).map(drop)
        })
        .await?;
    let id = draw_id()?;
    let days = state.config.limits.device_certificate_days;
    let certificate =
        pki.authority.device(&id, &request.signing_key, &request.csr_pem, now, days)?;
    let new = NewDevice {
        certificate_pem: certificate.pem,
        certificate_ends: certificate.ends,
        id: id.clone(),
        signing_key: request.signing_key,
        agent_version: request.agent_version.clone(),
        secret_sha256,
        keys_sha256,
    };
    // A crash before this commit leaves the token unused; after it, the same request gets the same answer.
    let device = state.store.write(move |tx| devices::add(tx, &new, now)).await?;
    if device.id == id {
        tracing::info!(device = %device.id, name = %device.name, "device enrolled");
        state.tell(HubEvent::DeviceEnrolled { device: device.id.clone() });
        if let Some(old) = &device.replaces {
            tracing::info!(device = %device.id, %old, "took the old device's place");
            state.tell(HubEvent::DeviceRevoked { device: old.clone() });
        }
    }
    Ok(answer(state, pki, device))
}

fn answer(state: &AppState, pki: &Pki, device: DeviceRow) -> EnrolResponse {
    let (mqtt_host, mqtt_port) = state.config.mqtt_address();
    EnrolResponse {
        device: device.id,
        certificate_pem: device.certificate_pem,
        ca_pem: pki.authority.pem().to_owned(),
        mqtt_host,
        mqtt_port,
        device_url: state.config.device_url(),
        channel: CHANNEL.into(),
    }
}

/// Checks everything in the request that needs no database; gives the secret and the digest of the
/// two keys.
fn check(request: &EnrolRequest) -> Result<([u8; 32], Digest), EnrolError> {
    let wrong = |what: &str| EnrolError::Request(format!("cannot enrol: {what}"));
    // A secret reads as a digest does: 64 hexadecimal digits.
    let secret: Digest = request.secret.parse().map_err(|_| wrong("the secret is not one"))?;
    let secret = *secret.as_bytes();
    if request.agent_version.len() > TEXT_BYTES {
        return Err(wrong("the agent's version is too long"));
    }
    let proof = base64::engine::general_purpose::STANDARD
        .decode(&request.proof)
        .map_err(|_| wrong("the proof is not base64"))?;
    if !request.signing_key.verifies(&proof_message(&secret, &request.csr_pem), &proof) {
        return Err(wrong("the proof is not signed by the signing key"));
    }
    let tls_key = pki::request_key(&request.csr_pem)?;
    let keys = Digest::of_parts(&[request.signing_key.as_bytes(), tls_key.der_bytes()]);
    Ok((secret, keys))
}

/// `dev-` and ten of a-z and 2-7: 2^50 ids, so that none comes twice by chance; the database's
/// primary key catches the rest.
fn draw_id() -> Result<DeviceId, EnrolError> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let random = random_bytes::<10>()
        .map_err(|source| PkiError::Key { path: "device id".into(), source })?;
    let text: String =
        random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    format!("dev-{text}").parse().map_err(|_| EnrolError::Request("cannot draw a device id".into()))
}

/// The root metadata with that digest, or the newest.
async fn root(state: &AppState, digest: Option<Digest>) -> Result<Option<Vec<u8>>, EnrolError> {
    let tuf = state.config.paths.tuf();
    let read = tokio::task::spawn_blocking(move || crate::release::root_json(&tuf, digest));
    Ok(read.await.map_err(|_| ReleaseError::Panicked)??)
}

impl From<Later> for EnrolError {
    fn from(later: Later) -> Self {
        Self::Later(later)
    }
}

impl IntoResponse for EnrolError {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Request(_) | Self::Pki(PkiError::Request(_)) => {
                (StatusCode::BAD_REQUEST, "invalid")
            }
            // An unknown secret and a used one are told apart only by who has the secret.
            Self::Store(StoreError::NotFound { .. }) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Store(StoreError::Conflict { .. }) => (StatusCode::CONFLICT, "conflict"),
            Self::Later(_) => (StatusCode::TOO_MANY_REQUESTS, "later"),
            Self::Store(StoreError::Full { .. }) => (StatusCode::INSUFFICIENT_STORAGE, "full"),
            Self::Store(_) | Self::Pki(_) | Self::Release(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        if status.is_server_error() {
            tracing::error!(error = &self as &dyn std::error::Error, "cannot enrol");
        }
        let message = if code == "internal" {
            "cannot enrol: the hub failed; its log says why".to_owned()
        } else {
            self.to_string()
        };
        let mut response = (status, Json(ApiError { code: code.into(), message })).into_response();
        if let Self::Later(Later { seconds }) = self {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
