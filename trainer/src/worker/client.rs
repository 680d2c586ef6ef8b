//! The hub's API as a worker calls it: HTTPS with a bearer token, and no other CA than the hub's.
//!
//! What is downloaded is limited while it arrives and checked against its digest. A token that the hub
//! no longer takes was perhaps rotated: the access file is read again, and what was asked is asked once
//! more with the token that is there now.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fleetloop_protocol::Digest;
use fleetloop_protocol::api::jobs::{Done, JobFailed, JobId, Lease, LeaseRequest, Renew};
use fleetloop_protocol::api::{ApiAccess, ApiError};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use thiserror::Error;

/// Nothing heard for so long means the connection is dead.
const SILENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// The longest list of removed samples that is read, in bytes: as many as a dataset has items.
const REMOVED_BYTES: usize = crate::dataset::DATASET_BYTES;
/// The longest error text that is read, in bytes.
const ERROR_BYTES: usize = 64 << 10;

/// Why the hub did not do what was asked.
#[derive(Debug, Error)]
pub enum HubError {
    /// The access file's address or certificate is unusable.
    #[error("cannot use the hub's access file")]
    Access(#[source] reqwest::Error),
    /// The hub could not be reached, or the connection broke.
    #[error(
        "cannot {operation}: no answer from the hub; check that it runs and that the address is right{}",
        fleetloop_observe::proxy::note()
    )]
    Unreachable {
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The hub answered with an error.
    #[error("cannot {operation}: the hub answered {status}: {message}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// The HTTP status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// What came is longer than allowed.
    #[error("cannot {operation}: more than {limit} bytes came")]
    TooLong {
        /// What was asked.
        operation: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// What came cannot be read.
    #[error("cannot {operation}: the hub's answer cannot be read; are both of one version?")]
    Answer {
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// What came is not what was asked for.
    #[error("cannot {operation}: {found} came instead of {wanted}")]
    Wrong {
        /// What was asked.
        operation: &'static str,
        /// The digest asked for.
        wanted: Digest,
        /// The digest that came.
        found: Digest,
    },
}

impl HubError {
    /// Whether the hub understood and said no: asking again will not help.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(*status, StatusCode::CONFLICT | StatusCode::NOT_FOUND | StatusCode::GONE))
    }

    /// Whether the hub may answer otherwise soon: it could not be reached, or is in trouble itself.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                let busy = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                status.is_server_error() || busy.contains(status)
            }
            Self::Unreachable { .. } => true,
            Self::Access(_) | Self::TooLong { .. } | Self::Answer { .. } | Self::Wrong { .. } => {
                false
            }
        }
    }

    /// Whether a job that met this would meet it again.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(
                *status,
                StatusCode::NOT_FOUND
                    | StatusCode::BAD_REQUEST
                    | StatusCode::PAYLOAD_TOO_LARGE
                    | StatusCode::UNPROCESSABLE_ENTITY
            ),
            Self::TooLong { .. } => true,
            Self::Access(_)
            | Self::Unreachable { .. }
            | Self::Answer { .. }
            | Self::Wrong { .. } => false,
        }
    }
}

/// The hub, ready to be asked.
#[derive(Debug, Clone)]
pub struct Hub {
    client: Client,
    base: String,
    token: Arc<RwLock<String>>,
    file: Option<PathBuf>,
}

impl Hub {
    /// A client for one hub. Nothing is sent yet.
    ///
    /// # Errors
    /// [`HubError::Access`] when the CA certificate cannot be used.
    pub fn new(access: &ApiAccess) -> Result<Self, HubError> {
        let cas =
            Certificate::from_pem_bundle(access.ca_pem.as_bytes()).map_err(HubError::Access)?;
        let client = Client::builder()
            .https_only(true)
            .tls_certs_only(cas)
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(HubError::Access)?;
        Ok(Self {
            client,
            base: format!("{}/api/v1", access.url.trim_end_matches('/')),
            token: Arc::new(RwLock::new(access.token.clone())),
            file: None,
        })
    }

    /// The same with the access file that the token came from.
    #[must_use]
    pub fn following(self, file: Option<PathBuf>) -> Self {
        Self { file, ..self }
    }

    /// Asks for a job.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn lease(&self, worker: &str) -> Result<Option<Lease>, HubError> {
        const OPERATION: &str = "lease a job";
        let response = self
            .post("/worker/lease", &LeaseRequest { worker: worker.to_owned() }, OPERATION)
            .await?;
        response
            .json()
            .await
            .map_err(|source| HubError::Unreachable { operation: OPERATION, source })
    }

    /// Keeps a lease up.
    ///
    /// # Errors
    /// [`HubError`]; a refusal means that the lease is lost.
    pub async fn renew(&self, job: JobId, renew: &Renew) -> Result<(), HubError> {
        self.post(&format!("/worker/jobs/{}/renew", job.0), renew, "renew a lease").await.map(drop)
    }

    /// Hands in a job's result.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn done(&self, job: JobId, done: &Done) -> Result<(), HubError> {
        self.post(&format!("/worker/jobs/{}/done", job.0), done, "hand in a job").await.map(drop)
    }

    /// Says that a job cannot be done.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn failed(&self, lease: &Lease, reason: String) -> Result<(), HubError> {
        let body = JobFailed { lease: lease.lease.clone(), reason };
        self.post(&format!("/worker/jobs/{}/failed", lease.job.0), &body, "report a failed job")
            .await
            .map(drop)
    }

    /// A dataset's canonical bytes.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn dataset(&self, digest: Digest, limit: usize) -> Result<Vec<u8>, HubError> {
        self.get("datasets", digest, limit, "fetch a dataset").await
    }

    /// The samples of a dataset that were removed.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn removed(&self, dataset: Digest) -> Result<Vec<Digest>, HubError> {
        const OPERATION: &str = "ask which samples were removed";
        let path = format!("/datasets/{dataset}/removed");
        let response = self.send(self.request(Method::GET, &path), OPERATION).await?;
        let bytes = body(response, REMOVED_BYTES, OPERATION).await?;
        serde_json::from_slice(&bytes)
            .map_err(|source| HubError::Answer { operation: OPERATION, source })
    }

    /// A sample's payload; none when it was removed.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn payload(&self, digest: Digest, limit: usize) -> Result<Option<Vec<u8>>, HubError> {
        match self.get("payloads", digest, limit, "fetch a payload").await {
            Err(HubError::Refused { status: StatusCode::GONE, .. }) => Ok(None),
            fetched => fetched.map(Some),
        }
    }

    /// An artefact.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn artefact(&self, digest: Digest, limit: usize) -> Result<Vec<u8>, HubError> {
        self.get("artefacts", digest, limit, "fetch an artefact").await
    }

    /// Stores an artefact.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn put_artefact(&self, digest: Digest, bytes: Vec<u8>) -> Result<(), HubError> {
        let request = self.request(Method::PUT, &format!("/artefacts/{digest}")).body(bytes);
        self.send(request, "store an artefact").await.map(drop)
    }

    async fn get(
        &self,
        kind: &str,
        digest: Digest,
        limit: usize,
        operation: &'static str,
    ) -> Result<Vec<u8>, HubError> {
        let request = self.request(Method::GET, &format!("/{kind}/{digest}"));
        let response = self.send(request, operation).await?;
        let bytes = body(response, limit, operation).await?;
        let found = Digest::of(&bytes);
        if found == digest {
            Ok(bytes)
        } else {
            Err(HubError::Wrong { operation, wanted: digest, found })
        }
    }

    async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        operation: &'static str,
    ) -> Result<Response, HubError> {
        self.send(self.request(Method::POST, path).json(body), operation).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    async fn send(
        &self,
        request: RequestBuilder,
        operation: &'static str,
    ) -> Result<Response, HubError> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        let again = request.try_clone();
        let refused = match send(request.bearer_auth(&token), operation).await {
            Err(error @ HubError::Refused { status: StatusCode::UNAUTHORIZED, .. }) => error,
            other => return other,
        };
        match (again, self.newer_than(&token)) {
            (Some(again), Some(token)) => send(again.bearer_auth(token), operation).await,
            _ => Err(refused),
        }
    }

    /// The token that the access file has now, if it is another one.
    fn newer_than(&self, token: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.file.as_ref()?).ok()?;
        let access: ApiAccess = toml::from_str(&text).ok()?;
        if access.token == token {
            return None;
        }
        tracing::info!("the hub's token was rotated; the access file has a new one");
        let mut kept = self.token.write().unwrap_or_else(PoisonError::into_inner);
        kept.clone_from(&access.token);
        Some(access.token)
    }
}

async fn send(request: RequestBuilder, operation: &'static str) -> Result<Response, HubError> {
    let response =
        request.send().await.map_err(|source| HubError::Unreachable { operation, source })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = body(response, ERROR_BYTES, operation).await.unwrap_or_default();
    let message = serde_json::from_slice::<ApiError>(&text)
        .map_or_else(|_| String::from_utf8_lossy(&text).into_owned(), |e| e.message);
    Err(HubError::Refused { operation, status, message })
}

async fn body(
    mut response: Response,
    limit: usize,
    operation: &'static str,
) -> Result<Vec<u8>, HubError> {
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|source| HubError::Unreachable { operation, source })?
    {
        if bytes.len() + chunk.len() > limit {
            return Err(HubError::TooLong { operation, limit });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
