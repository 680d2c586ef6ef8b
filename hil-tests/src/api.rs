//! The hub's HTTP API as a program calls it that is no command line: bearer token, the hub's own
//! CA and no other; and an agent's page on loopback. Calls block; each gives up after [`LIMIT`].

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use fleetloop_protocol::api::{ApiAccess, ApiError};
use reqwest::{Certificate, Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long one call may take: the hub's slowest answer is a full page of samples.
const LIMIT: Duration = Duration::from_secs(20);

/// A hub's API.
pub struct ApiClient {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    access: ApiAccess,
}

impl ApiClient {
    /// The API that an access file (`admin.toml`, `annotator.toml`) opens.
    ///
    /// # Errors
    /// When the file cannot be read or is no access file.
    pub fn open(file: &Path) -> Result<Self> {
        // Another part of this process may have installed it before, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read access file {}", file.display()))?;
        let access: ApiAccess = toml::from_str(&text)
            .with_context(|| format!("cannot parse access file {}", file.display()))?;
        let ca = Certificate::from_pem(access.ca_pem.as_bytes()).context("cannot read the CA")?;
        let client = reqwest::Client::builder()
            .tls_certs_only([ca])
            .no_proxy()
            // A hub that was killed leaves connections that look as if they could be used again.
            .pool_max_idle_per_host(0)
            .timeout(LIMIT)
            .build()
            .context("cannot make an HTTPS client")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime for HTTPS")?;
        Ok(Self { runtime, client, access })
    }

    /// The hub's page and the token to log in with.
    pub fn page(&self) -> (&str, &str) {
        (&self.access.url, &self.access.token)
    }

    /// `GET path` as JSON.
    ///
    /// # Errors
    /// When the hub cannot be reached or does not say yes.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        parse(path, &self.call(self.request(Method::GET, path), path)?)
    }

    /// `GET path` as bytes.
    ///
    /// # Errors
    /// When the hub cannot be reached or does not say yes.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        self.call(self.request(Method::GET, path), path)
    }

    /// `POST path` with a JSON body; the answer's body is not looked at.
    ///
    /// # Errors
    /// When the hub cannot be reached or does not say yes.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<()> {
        self.call(self.request(Method::POST, path).json(body), path).map(drop)
    }

    /// `POST path` with a JSON body; the answer as JSON.
    ///
    /// # Errors
    /// When the hub cannot be reached, does not say yes, or answers something else.
    pub fn ask<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        parse(path, &self.call(self.request(Method::POST, path).json(body), path)?)
    }

    /// Opens the hub's page on a connection of its own, without a token.
    ///
    /// # Errors
    /// When it does not come within that time.
    pub fn open_page(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let late = || format!("the page did not come within {within:?}");
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let asked = self.client.get(&self.access.url).timeout(left);
            let opened = self
                .runtime
                .block_on(async { asked.send().await?.error_for_status()?.bytes().await });
            match opened {
                Ok(_) => return Ok(()),
                // As a browser does when a connection closes before it has answered.
                Err(error) if error.is_request() && Instant::now() < deadline => {}
                Err(error) => return Err(error).with_context(late),
            }
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/api/v1/{path}", self.access.url.trim_end_matches('/'));
        self.client.request(method, url).bearer_auth(&self.access.token)
    }

    fn call(&self, request: RequestBuilder, path: &str) -> Result<Vec<u8>> {
        self.runtime.block_on(async {
            let answer = request.send().await.with_context(|| format!("cannot call {path}"))?;
            let status = answer.status();
            let body = answer
                .bytes()
                .await
                .with_context(|| format!("cannot read the answer of {path}"))?;
            if status.is_success() {
                return Ok(body.to_vec());
            }
            match serde_json::from_slice::<ApiError>(&body) {
                Ok(error) => bail!("the hub refused {path} ({status}, {}): {error}", error.code),
                Err(_) => bail!("the hub refused {path} ({status})"),
            }
        })
    }
}

/// What listens on this machine's loopback without TLS or login: an agent's status page.
pub struct Local {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Local {
    /// A client.
    ///
    /// # Errors
    /// When the system has no resources for one.
    pub fn new() -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            runtime: runtime.context("cannot start a runtime for HTTP")?,
            client: client.context("cannot make an HTTP client")?,
        })
    }

    /// `GET url` as JSON.
    ///
    /// # Errors
    /// When nobody answers, or with no.
    pub fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        let body = self.runtime.block_on(async {
            self.client.get(url).send().await?.error_for_status()?.bytes().await
        });
        parse(url, &body.with_context(|| format!("cannot call {url}"))?)
    }
}

fn parse<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).with_context(|| {
        let shown: String = String::from_utf8_lossy(body).chars().take(200).collect();
        format!("cannot understand the answer of {path}: {shown}")
    })
}
