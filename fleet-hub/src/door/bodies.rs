//! How many bytes of a request's body are read at most, by route.
//!
//! [`BODIES`] lists the routes that differ from the rule, which is [`JSON_BYTES`] for a request that
//! writes and nothing for one that reads; so a route that nobody thought of has a small limit. The
//! limit is set before anyone is asked for a credential, and nothing of a body is read before a
//! handler asks for it: behind a credential wherever the credential is not in the body itself.
//! A body that announces more is refused with 413 at once, one that turns out larger when it is
//! read. `docs/api.md` holds the table, and a test compares the two.

use axum::RequestExt as _;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::Response;
use fleetloop_protocol::enrol::ENROL_PATH;
use fleetloop_protocol::export::REQUEST_BYTES;
use fleetloop_protocol::limits::PAYLOAD_BYTES;
use fleetloop_protocol::renew::RENEW_PATH;
use fleetloop_protocol::revoked::{NEWER_LIST_BYTES, REVOKED_PATH};

use crate::AppState;
use crate::api::error::Failure;
use crate::limits::Limits;

/// The largest JSON document that is read where nothing else is said, in bytes.
pub const JSON_BYTES: usize = 64 * 1024;

/// The form of a login: a token and its name.
const LOGIN_BYTES: usize = 512;

/// A certificate request, two keys and a proof: 1 KiB, with as much again for a long version.
const ENROL_BYTES: usize = 4 * 1024;

/// All labels that a hub may have, at their longest.
const LABELS_BYTES: usize = 256 * 1024;

/// How many bytes.
#[derive(Debug, Clone, Copy)]
pub enum Bytes {
    /// That many.
    Fixed(usize),
    /// As `hub.toml` says.
    Limit(&'static str, fn(&Limits) -> u64),
    /// As `hub.toml` says; the handler reads piece by piece, counts, and keeps no piece in memory.
    Streamed(&'static str, fn(&Limits) -> u64),
}

impl Bytes {
    fn of(self, limits: &Limits) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Limit(_, bytes) | Self::Streamed(_, bytes) => {
                usize::try_from(bytes(limits)).unwrap_or(usize::MAX)
            }
        }
    }
}

/// A route whose body has another limit than [`JSON_BYTES`].
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// The method.
    pub method: &'static str,
    /// The path as it is routed.
    pub path: &'static str,
    /// How many bytes.
    pub bytes: Bytes,
    /// Who may have them read, for the manual.
    pub who: &'static str,
}

const fn body(method: &'static str, path: &'static str, bytes: Bytes, who: &'static str) -> Body {
    Body { method, path, bytes, who }
}

/// The routes that differ from the rule.
pub const BODIES: &[Body] = &[
    body("POST", "/login", Bytes::Fixed(LOGIN_BYTES), "anyone; the token is in it"),
    body("POST", "/logout", Bytes::Fixed(0), "anyone"),
    body("POST", ENROL_PATH, Bytes::Fixed(ENROL_BYTES), "anyone; the secret is in it"),
    body("POST", RENEW_PATH, Bytes::Fixed(ENROL_BYTES), "anyone; the proof is in it"),
    body("PUT", "/payloads/{commitment}", Bytes::Fixed(PAYLOAD_BYTES), "an enrolled device"),
    body("POST", REVOKED_PATH, Bytes::Fixed(NEWER_LIST_BYTES), "an enrolled device"),
    body("PUT", "/api/v1/labels/set", Bytes::Fixed(LABELS_BYTES), "an admin"),
    body(
        "POST",
        "/api/v1/imports",
        Bytes::Limit("limits.request_bytes", |limits| limits.request_bytes as u64),
        "an admin",
    ),
    body(
        "POST",
        "/api/v1/imports/pictures",
        Bytes::Limit("limits.request_bytes", |limits| limits.request_bytes as u64),
        "an admin",
    ),
    body(
        "POST",
        "/api/v1/worker/jobs/{id}/done",
        Bytes::Limit("limits.request_bytes", |limits| limits.request_bytes as u64),
        "a worker",
    ),
    body("POST", "/api/v1/samples/collect", Bytes::Fixed(REQUEST_BYTES), "an admin"),
    body(
        "PUT",
        "/api/v1/artefacts/{digest}",
        Bytes::Streamed("limits.artefact_bytes", |limits| limits.artefact_bytes),
        "a worker; written to the disk piece by piece",
    ),
];

/// What is read of a body for that method and route.
fn allowed(method: &Method, path: &str) -> Bytes {
    let listed = BODIES.iter().find(|body| method.as_str() == body.method && path == body.path);
    match listed {
        Some(body) => body.bytes,
        None if *method == Method::GET || *method == Method::HEAD => Bytes::Fixed(0),
        None => Bytes::Fixed(JSON_BYTES),
    }
}

/// Sets the limit of the request's route.
///
/// # Errors
/// 413 for a body that announces more.
pub async fn limit(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let allowed = path.map_or(Bytes::Fixed(0), |path| allowed(request.method(), path));
    let most = allowed.of(&state.config.limits);
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if path.is_some() && announced.is_some_and(|len| len > most as u64) {
        return Err(Failure::too_large(format!(
            "cannot {} {}: the body has more than {most} bytes, which is this route's limit; see docs/api.md",
            request.method(),
            request.uri().path()
        )));
    }
    DefaultBodyLimit::max(most).apply(&mut request);
    let request = match allowed {
        Bytes::Streamed(..) => request,
        Bytes::Fixed(_) | Bytes::Limit(..) => request.with_limited_body(),
    };
    Ok(next.run(request).await)
}

/// The rows that `docs/api.md` holds.
#[cfg(test)]
pub(super) fn manual() -> Vec<String> {
    let row = |body: &Body| {
        let bytes = match body.bytes {
            Bytes::Fixed(bytes) => bytes.to_string(),
            Bytes::Limit(key, _) | Bytes::Streamed(key, _) => format!("`{key}`"),
        };
        format!("| {} | `{}` | {bytes} | {} |", body.method, body.path, body.who)
    };
    BODIES.iter().map(row).collect()
}
