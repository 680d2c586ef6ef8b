//! The API's client: one hub, one token, one CA.
//!
//! Everything comes from an access file (`admin.toml`, written by `fleet-hub init`): no other
//! certificate authority is trusted, no proxy is used, and plain HTTP is refused. An error names
//! what was asked of which hub; the hub's own words (an `ApiError`) are the cause below it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use fleetloop_observe::proxy;
use fleetloop_observe::text::visible;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::{ApiAccess, ApiError};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How long the hub may be silent within an answer. A backup's first byte takes longest: the
/// database is copied before.
const SILENCE: Duration = Duration::from_secs(300);

/// Why the hub could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The access file cannot be read.
    #[error(
        "cannot read access file {path}; name one with --access or FLEET_HUB_ACCESS ('fleet-hub init' wrote admin.toml beside its data)"
    )]
    Access {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The access file is not one.
    #[error(
        "cannot understand access file {path}; want url, token and ca_pem as 'fleet-hub init' writes them"
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The hub was not reached, or went away.
    #[error(
        "cannot {operation}: no answer from {url}; is 'fleet-hub serve' running there?{}",
        proxy::note()
    )]
    Unreached {
        /// What was asked.
        operation: String,
        /// Of whom.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The hub refused.
    #[error("cannot {operation}: the hub answered {status}")]
    Refused {
        /// What was asked.
        operation: String,
        /// The status.
        status: StatusCode,
        /// Its words.
        #[source]
        source: ApiError,
    },
    /// The hub answered something else than agreed.
    #[error("cannot {operation}: the answer of {url} is not one of a fleet-hub of this version")]
    Answer {
        /// What was asked.
        operation: String,
        /// Of whom.
        url: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A hub and the right to ask it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
    ca_pem: String,
}

impl Client {
    /// A client of the hub that the access file names.
    ///
    /// # Errors
    /// The file cannot be read or is not an access file.
    pub fn open(path: &Path) -> Result<Self, ClientError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ClientError::Access { path: path.to_owned(), source })?;
        let malformed = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Malformed {
            path: path.to_owned(),
            source,
        };
        let access: ApiAccess = toml::from_str(&text).map_err(|e| malformed(e.into()))?;
        Self::new(&access).map_err(|e| malformed(e.into()))
    }

    /// A client by an access.
    ///
    /// # Errors
    /// The CA is no certificate.
    pub fn new(access: &ApiAccess) -> Result<Self, reqwest::Error> {
        let cas = reqwest::Certificate::from_pem_bundle(access.ca_pem.as_bytes())?;
        let http = reqwest::Client::builder()
            .tls_certs_only(cas)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(concat!("fleet-hub/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let url = access.url.trim_end_matches('/').to_owned();
        let (token, ca_pem) = (access.token.clone(), access.ca_pem.clone());
        Ok(Self { http, url, token, ca_pem })
    }

    /// The hub's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What an access file to the same hub with another token says.
    pub fn access_with(&self, token: &str) -> ApiAccess {
        let (url, ca_pem) = (self.url.clone(), self.ca_pem.clone());
        ApiAccess { url, token: token.to_owned(), ca_pem }
    }

    /// `GET` of a path below `/api/v1`; `operation` completes "cannot …".
    ///
    /// # Errors
    /// The hub was not reached, refused, or answered something else.
    pub async fn get<T: DeserializeOwned>(
        &self,
        operation: &str,
        path: &str,
    ) -> Result<T, ClientError> {
        let response = self.send(operation, self.request(Method::GET, path)).await?;
        self.json(operation, response).await
    }

    /// `POST` of a JSON body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        operation: &str,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        let response = self.send(operation, self.request(Method::POST, path).json(body)).await?;
        self.json(operation, response).await
    }

    /// `POST` of bytes.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post_bytes<T: DeserializeOwned>(
        &self,
        operation: &str,
        path: &str,
        bytes: Vec<u8>,
    ) -> Result<T, ClientError> {
        let request = self.request(Method::POST, path).body(Bytes::from(bytes));
        let response = self.send(operation, request).await?;
        self.json(operation, response).await
    }

    /// `PUT` of a JSON body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        operation: &str,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        let response = self.send(operation, self.request(Method::PUT, path).json(body)).await?;
        self.json(operation, response).await
    }

    /// Uploads an artefact; one that the hub has is no error.
    ///
    /// # Errors
    /// The hub was not reached or refused.
    pub async fn put_artefact(
        &self,
        operation: &str,
        bytes: Vec<u8>,
    ) -> Result<Digest, ClientError> {
        let digest = Digest::of(&bytes);
        let path = format!("/artefacts/{digest}");
        self.send(operation, self.request(Method::PUT, &path).body(Bytes::from(bytes))).await?;
        Ok(digest)
    }

    /// `GET` of bytes, as they come.
    ///
    /// # Errors
    /// The hub was not reached or refused.
    pub async fn stream(&self, operation: &str, path: &str) -> Result<Download, ClientError> {
        let response = self.send(operation, self.request(Method::GET, path)).await?;
        Ok(Download { response, operation: operation.to_owned(), url: self.url.clone() })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/api/v1{path}", self.url);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    async fn send(
        &self,
        operation: &str,
        request: RequestBuilder,
    ) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|source| self.unreached(operation, source))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|source| self.unreached(operation, source))?;
        let mut source: ApiError = serde_json::from_slice(&body).unwrap_or_else(|_| ApiError {
            code: "unknown".into(),
            message: "without a reason; is this address a fleet-hub's admin listener?".into(),
        });
        // It is printed on one line, whatever name it quotes.
        source.message = visible(&source.message).into_owned();
        Err(ClientError::Refused { operation: operation.to_owned(), status, source })
    }

    async fn json<T: DeserializeOwned>(
        &self,
        operation: &str,
        response: Response,
    ) -> Result<T, ClientError> {
        let body = response.bytes().await.map_err(|source| self.unreached(operation, source))?;
        serde_json::from_slice(&body).map_err(|e| ClientError::Answer {
            operation: operation.to_owned(),
            url: self.url.clone(),
            source: e.into(),
        })
    }

    fn unreached(&self, operation: &str, source: reqwest::Error) -> ClientError {
        // The address is in our own text; the token never is in it.
        ClientError::Unreached {
            operation: operation.to_owned(),
            url: self.url.clone(),
            source: source.without_url(),
        }
    }
}

/// An answer's bytes, as they come.
#[derive(Debug)]
pub struct Download {
    response: Response,
    operation: String,
    url: String,
}

impl Download {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// The connection broke: the answer is not whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.response.chunk().await.map_err(|source| ClientError::Unreached {
            operation: self.operation.clone(),
            url: self.url.clone(),
            source: source.without_url(),
        })
    }

    /// The length the hub announced.
    pub fn len_bytes(&self) -> Option<u64> {
        self.response.content_length()
    }
}

/// A query string from pairs; those without a value are left out.
pub fn query(pairs: &[(&str, Option<String>)]) -> String {
    let mut out = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        if let Some(value) = value {
            out.append_pair(name, value);
        }
    }
    let text = out.finish();
    if text.is_empty() { text } else { format!("?{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_refused() {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
        let access = ApiAccess {
            url: "http://127.0.0.1:1/".into(),
            token: "t".into(),
            ca_pem: key.cert.pem(),
        };
        let client = Client::new(&access).expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = runtime.block_on(client.get::<u64>("count", "/sample-counts"));
        let error = asked.expect_err("plain HTTP");
        let ClientError::Unreached { source, .. } = error else { panic!("{error:?}") };
        assert!(source.is_builder(), "{source:?}");
    }

    #[test]
    fn a_query_leaves_out_what_was_not_asked() {
        assert_eq!(query(&[("a", None)]), "");
        assert_eq!(query(&[("a", Some("x y".into())), ("b", Some("&".into()))]), "?a=x+y&b=%26");
    }
}
