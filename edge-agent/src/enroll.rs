//! Enrolment: from a token to an identity.
//!
//! ```text
//!  token ─► TLS, CA by digest ─► root.json, by digest ─► keys, kept ─► POST ─► check ─► keep
//! ```
//!
//! Nothing is sent before the hub has proven to be the token's; the two keys are on the disk
//! before they are named to the hub, so a lost reply is answered again with the same keys. The
//! record is written last: until then the device is not enrolled. No secret is logged.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use fleetloop_protocol::enrol::{
    ENROL_PATH, ENROL_ROOT_PATH, EnrolRequest, EnrolResponse, proof_message,
};
use fleetloop_protocol::token::{EnrolmentToken, TokenError};
use fleetloop_protocol::{DeviceId, Digest};
use reqwest::StatusCode;

use crate::answer::{self, Unread, detail};
use crate::certificate::{self, Expected};
use crate::clock::{Clock, ClockError};
use crate::identity::{DeviceKeys, Enrolment, IdentityDir, IdentityError, ROOT_BYTES, Record};
use crate::tls::{self, TlsError};

/// The largest answer to an enrolment request, in bytes.
const RESPONSE_BYTES: u64 = 256 * 1024;

/// Why a device is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Not a token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The clock's floor.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// It is already.
    #[error(
        "cannot enrol: {} already holds device {device}; choose another --data folder, or revoke \
         {device} at the hub and remove this one", dir.display()
    )]
    AlreadyEnrolled {
        /// Its name.
        device: DeviceId,
        /// The data folder.
        dir: PathBuf,
    },
    /// The hub's chain does not lead to the token's CA.
    #[error(
        "cannot enrol at {hub}: its certificate is not from the CA the token names; ask for a new \
         token ('fleet-hub device add'), and find out who answers at this address"
    )]
    WrongCa {
        /// The hub's address.
        hub: String,
        /// What TLS said.
        #[source]
        source: reqwest::Error,
    },
    /// The root metadata is not the token's.
    #[error(
        "cannot enrol at {hub}: its release root has SHA-256 {found}, the token names {expected}; \
         ask for a new token ('fleet-hub device add')"
    )]
    WrongRoot {
        /// The hub's address.
        hub: String,
        /// The digest of what the hub served.
        found: Digest,
        /// The digest the token names.
        expected: Digest,
    },
    /// The token was used by another device or is too old.
    #[error(
        "cannot enrol at {hub}: the token was used or has expired ({detail}); ask for a new one \
         ('fleet-hub device add')"
    )]
    TokenUsed {
        /// The hub's address.
        hub: String,
        /// What the hub said.
        detail: String,
    },
    /// The hub said no.
    #[error("cannot enrol at {hub}: it answered {status} ({detail}); see the hub's log")]
    Refused {
        /// The hub's address.
        hub: String,
        /// The HTTP status.
        status: u16,
        /// What the hub said.
        detail: String,
    },
    /// No connection, or one that broke.
    #[error(
        "cannot reach the hub at {hub}; check that it serves there and that this device's network \
         reaches it, then run the same command again: the token is still good"
    )]
    Unreachable {
        /// The hub's address.
        hub: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The hub's answer cannot be right.
    #[error(
        "cannot take the answer of {hub}: {reason}; hub and agent may be of different versions"
    )]
    BadAnswer {
        /// The hub's address.
        hub: String,
        /// What is wrong.
        reason: String,
    },
    /// The device's folder.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A device that is enrolled now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The name the hub gave it.
    pub device: DeviceId,
    /// The hub's address.
    pub hub: String,
}

/// Enrols this device with the text of a token and keeps its identity under `data_dir`.
///
/// # Errors
/// [`EnrollError`] says what to do next. Calling again with the same token is always safe.
pub async fn enroll(token: &str, data_dir: &Path) -> Result<Enrolled, EnrollError> {
    let clock = Clock::system(data_dir.join("clock.json"))?;
    enroll_at(&token.parse()?, data_dir, &clock).await
}

/// The same with a clock.
///
/// # Errors
/// See [`enroll`].
pub async fn enroll_at(
    token: &EnrolmentToken,
    data_dir: &Path,
    clock: &Clock,
) -> Result<Enrolled, EnrollError> {
    let dir = IdentityDir::new(data_dir);
    if let Some(record) = dir.record()? {
        return Err(EnrollError::AlreadyEnrolled {
            device: record.device,
            dir: data_dir.to_owned(),
        });
    }
    let hub = Hub {
        client: tls::http_client(tls::enrolment_config(token.ca, clock)?)?,
        url: token.hub.trim_end_matches('/').to_owned(),
    };
    let root_json = hub.root(token).await?;
    // A power cut from here on leaves keys without a record, which the next attempt uses.
    let keys = dir.keys()?;
    let answer = hub.ask(&request(token, &keys)?).await?;
    let checked = check(&answer, token, &keys, clock)
        .map_err(|reason| EnrollError::BadAnswer { hub: hub.url.clone(), reason })?;
    dir.keep(&Enrolment {
        record: &checked,
        certificate_pem: &answer.certificate_pem,
        ca_pem: &answer.ca_pem,
        root_json: &root_json,
    })?;
    tracing::info!(device = %checked.device, hub = hub.url, "enrolled");
    Ok(Enrolled { device: checked.device, hub: hub.url })
}

fn request(token: &EnrolmentToken, keys: &DeviceKeys) -> Result<EnrolRequest, EnrollError> {
    let csr_pem = keys.tls().certificate_request()?;
    let proof = keys.signing().sign(&proof_message(&token.secret, &csr_pem));
    Ok(EnrolRequest {
        secret: token.secret.iter().map(|byte| format!("{byte:02x}")).collect(),
        signing_key: keys.signing().public(),
        csr_pem,
        proof: base64::engine::general_purpose::STANDARD.encode(proof),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

struct Hub {
    client: reqwest::Client,
    url: String,
}

impl Hub {
    async fn root(&self, token: &EnrolmentToken) -> Result<Vec<u8>, EnrollError> {
        let path = format!("{}{ENROL_ROOT_PATH}?sha256={}", self.url, token.root);
        let request = self.client.get(path);
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let (status, body) = self.body(response, ROOT_BYTES).await?;
        if !status.is_success() {
            return Err(self.refused(status, &body));
        }
        let found = Digest::of(&body);
        if found != token.root {
            let (hub, expected) = (self.url.clone(), token.root);
            return Err(EnrollError::WrongRoot { hub, found, expected });
        }
        Ok(body)
    }

    async fn ask(&self, request: &EnrolRequest) -> Result<EnrolResponse, EnrollError> {
        let post = self.client.post(format!("{}{ENROL_PATH}", self.url)).json(request);
        let response = post.send().await.map_err(|error| self.failed(error))?;
        let (status, body) = self.body(response, RESPONSE_BYTES).await?;
        match status {
            StatusCode::CONFLICT | StatusCode::GONE => {
                Err(EnrollError::TokenUsed { hub: self.url.clone(), detail: detail(&body) })
            }
            status if status.is_success() => serde_json::from_slice(&body).map_err(|error| {
                EnrollError::BadAnswer { hub: self.url.clone(), reason: error.to_string() }
            }),
            status => Err(self.refused(status, &body)),
        }
    }

    async fn body(
        &self,
        mut response: reqwest::Response,
        limit: u64,
    ) -> Result<(StatusCode, Vec<u8>), EnrollError> {
        match answer::body(&mut response, limit).await {
            Ok(body) => Ok((response.status(), body)),
            Err(Unread::Broken(error)) => Err(self.failed(error)),
            Err(Unread::TooLong) => Err(EnrollError::BadAnswer {
                hub: self.url.clone(),
                reason: format!("it is longer than {limit} bytes"),
            }),
        }
    }

    fn failed(&self, source: reqwest::Error) -> EnrollError {
        let hub = self.url.clone();
        if tls::handshake_failure(&source).is_some_and(tls::is_wrong_ca) {
            return EnrollError::WrongCa { hub, source };
        }
        EnrollError::Unreachable { hub, source }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> EnrollError {
        EnrollError::Refused {
            hub: self.url.clone(),
            status: status.as_u16(),
            detail: detail(body),
        }
    }
}

/// The record, once everything in the answer holds.
fn check(
    answer: &EnrolResponse,
    token: &EnrolmentToken,
    keys: &DeviceKeys,
    clock: &Clock,
) -> Result<Record, String> {
    let ca = certificate::chain("CA", &answer.ca_pem)?.swap_remove(0);
    if Digest::of(&ca) != token.ca {
        return Err("the CA it gives is not the one the token names".into());
    }
    let chain = certificate::chain("device", &answer.certificate_pem)?;
    let key_info = keys.tls().public_key_info();
    let expected =
        Expected { cas: std::slice::from_ref(&ca), device: &answer.device, key_info: &key_info };
    certificate::check(&chain, &expected, clock)?;
    let past = clock.past().max(certificate::issued_by(clock, &chain[0]));
    let url = |name: &str, text: &str| {
        let ok = text.starts_with("https://") && url::Url::parse(text).is_ok();
        if ok { Ok(()) } else { Err(format!("{name} {text:?} is not an https address")) }
    };
    url("device address", &answer.device_url)?;
    if answer.mqtt_host.is_empty() || answer.mqtt_port == 0 {
        return Err("it names no broker".into());
    }
    let channel_ok = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if answer.channel.is_empty() || !answer.channel.bytes().all(channel_ok) {
        return Err(format!("release channel {:?} is not a name", answer.channel));
    }
    Ok(Record {
        format: crate::identity::FORMAT,
        device: answer.device.clone(),
        hub: token.hub.clone(),
        mqtt_host: answer.mqtt_host.clone(),
        mqtt_port: answer.mqtt_port,
        device_url: answer.device_url.trim_end_matches('/').to_owned(),
        channel: answer.channel.clone(),
        ca: token.ca,
        root: token.root,
        enrolled_at: past,
    })
}

#[cfg(test)]
#[path = "enroll_tests.rs"]
mod tests;
