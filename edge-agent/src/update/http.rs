//! The hub's device listener over mutual TLS: metadata, artefacts; and the time, without showing a
//! certificate.
//!
//! Every answer has a limit before it is read. A transfer may take as long as it likes, but not be
//! silent for longer than the client's idle timeout.

use std::path::Path;

use fleetloop_protocol::Digest;
use fleetloop_protocol::digest::Hasher;
use fleetloop_protocol::revoked::{NewerList, REVOKED_PATH};
use fleetloop_protocol::time::HubTime;
use reqwest::{Response, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::error::UpdateError;
use super::tuf::Want;
use crate::answer::{self, Unread};
use crate::clock::Clock;
use crate::contacts::Contacts;
use crate::durable::{self, DurableError};
use crate::identity::Identity;
use crate::tls;

/// The largest answer to `GET /time`, in bytes.
const TIME_BYTES: u64 = 1024;

/// The hub as a device sees it over HTTPS.
#[derive(Debug, Clone)]
pub struct HubHttp {
    client: reqwest::Client,
    /// For a device that does not know yet whether its certificate has expired.
    anonymous: reqwest::Client,
    contacts: Contacts,
    channel: String,
}

impl HubHttp {
    /// For the device with that identity.
    ///
    /// # Errors
    /// [`UpdateError::Tls`].
    pub fn new(identity: &Identity, clock: &Clock) -> Result<Self, UpdateError> {
        let record = identity.record();
        let client = tls::http_client(tls::device_config(identity, clock)?)?;
        let anonymous = tls::http_client(tls::anonymous_config(identity, clock)?)?;
        let (contacts, channel) = (identity.contacts().clone(), record.channel.clone());
        Ok(Self { client, anonymous, contacts, channel })
    }

    /// What time the hub has.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn time(&self) -> Result<HubTime, UpdateError> {
        let base = self.contacts.device_url();
        let url = format!("{base}/time");
        let response = self.anonymous.get(&url).send().await;
        let response = response.map_err(|source| {
            self.contacts.url_failed(&base);
            unreachable(&url, source)
        })?;
        let body = read(&url, ok(&url, response)?, TIME_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|error| UpdateError::BadAnswer { url, reason: error.to_string() })
    }

    /// A metadata file, or none when the channel does not have it. At most one byte more than the
    /// limit is read, which the walk then refuses.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn metadata(&self, want: &Want) -> Result<Option<Vec<u8>>, UpdateError> {
        let url = format!("{}/tuf/{}/{}", self.contacts.device_url(), self.channel, want.file);
        metadata(&self.client, &url, want.limit_bytes).await
    }

    /// A small artefact, in memory and checked.
    ///
    /// # Errors
    /// [`UpdateError::WrongBytes`] when they are not the ones named.
    pub async fn small_artefact(&self, digest: Digest, len: u64) -> Result<Vec<u8>, UpdateError> {
        let url = self.artefact_url(digest);
        let response = self.get(&url, 0).await?;
        let body = read(&url, ok(&url, response)?, len).await?;
        let found = Digest::of(&body);
        if found != digest {
            return Err(UpdateError::WrongBytes { expected: digest, found });
        }
        Ok(body)
    }

    /// An artefact of `len` bytes into `part`, going on where an earlier attempt was cut; checked
    /// and on the disk when this returns.
    ///
    /// The part stays when the link breaks, and is removed when its bytes are wrong or the disk is
    /// full. Wrong bytes that were begun by an earlier attempt are fetched once more from the
    /// start: a power cut may have left a part whose length is right and whose bytes are not.
    ///
    /// Cancel-safe: the part is left as after a broken link.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn artefact(&self, digest: Digest, len: u64, part: &Path) -> Result<(), UpdateError> {
        let resumed = match self.artefact_once(digest, len, part).await? {
            Fetched::Good => return Ok(()),
            Fetched::Wrong { found, resumed } => (found, resumed),
        };
        if let (found, false) = resumed {
            return Err(UpdateError::WrongBytes { expected: digest, found });
        }
        match self.artefact_once(digest, len, part).await? {
            Fetched::Good => Ok(()),
            Fetched::Wrong { found, .. } => {
                Err(UpdateError::WrongBytes { expected: digest, found })
            }
        }
    }

    async fn artefact_once(
        &self,
        digest: Digest,
        len: u64,
        part: &Path,
    ) -> Result<Fetched, UpdateError> {
        let mut file = Part::open(part, len).await?;
        let resumed = file.have > 0;
        if file.have < len || len == 0 {
            let result = self.fill(digest, len, &mut file).await;
            if matches!(result, Err(UpdateError::DiskFull { .. })) {
                // The outbox needs the room more than a part that cannot be completed.
                durable::remove(part)?;
            }
            result?;
        }
        let found = file.hasher.finish();
        if found != digest {
            durable::remove(part)?;
            return Ok(Fetched::Wrong { found, resumed });
        }
        file.file.sync_all().await.map_err(|source| disk("sync", part, source))?;
        Ok(Fetched::Good)
    }

    async fn fill(&self, digest: Digest, len: u64, part: &mut Part<'_>) -> Result<(), UpdateError> {
        let url = self.artefact_url(digest);
        let mut response = ok(&url, self.get(&url, part.have).await?)?;
        if part.have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            part.restart().await?;
        }
        let poured = pour(&url, &mut response, len, part).await;
        // Whatever came is for the next attempt, so it must have left this process's buffers.
        part.file.flush().await.map_err(|source| disk("write", part.path, source))?;
        poured?;
        if part.have < len {
            let reason = format!("{} of {len} bytes", part.have);
            return Err(UpdateError::BadAnswer { url, reason });
        }
        Ok(())
    }

    /// Shows the hub a list of revoked devices that it signed and does not publish any more.
    ///
    /// # Errors
    /// [`UpdateError`]; the hub has not taken it.
    pub async fn show_newer(&self, list: &NewerList) -> Result<(), UpdateError> {
        let url = format!("{}{REVOKED_PATH}", self.contacts.device_url());
        let response = self.client.post(&url).json(list).send().await;
        ok(&url, response.map_err(|source| unreachable(&url, source))?).map(drop)
    }

    fn artefact_url(&self, digest: Digest) -> String {
        format!("{}/artefacts/{digest}", self.contacts.device_url())
    }

    async fn get(&self, url: &str, from: u64) -> Result<Response, UpdateError> {
        let mut request = self.client.get(url);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.send().await.map_err(|source| unreachable(url, source))
    }
}

/// A metadata file from `url`, or none when it is not there; at most one byte over the limit is read.
pub(crate) async fn metadata(
    client: &reqwest::Client,
    url: &str,
    limit_bytes: u64,
) -> Result<Option<Vec<u8>>, UpdateError> {
    let response = client.get(url).send().await.map_err(|source| unreachable(url, source))?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let mut response = ok(url, response)?;
    let mut body = Vec::new();
    while let Some(chunk) = chunk(url, &mut response).await? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > limit_bytes {
            body.truncate(limit_bytes as usize + 1);
            break;
        }
    }
    Ok(Some(body))
}

async fn pour(
    url: &str,
    response: &mut Response,
    len: u64,
    part: &mut Part<'_>,
) -> Result<(), UpdateError> {
    while let Some(chunk) = chunk(url, response).await? {
        if part.have + chunk.len() as u64 > len {
            let reason = format!("more than the {len} bytes that were named");
            return Err(UpdateError::BadAnswer { url: url.to_owned(), reason });
        }
        part.append(&chunk).await?;
    }
    Ok(())
}

enum Fetched {
    Good,
    Wrong { found: Digest, resumed: bool },
}

/// A file under way: what is there, and its digest so far.
struct Part<'a> {
    path: &'a Path,
    file: tokio::fs::File,
    hasher: Hasher,
    have: u64,
}

impl<'a> Part<'a> {
    async fn open(path: &'a Path, len: u64) -> Result<Self, UpdateError> {
        let error = |source| disk("open", path, source);
        let file = tokio::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .await
            .map_err(error)?;
        let mut part = Self { path, file, hasher: Hasher::new(), have: 0 };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = part.file.read(&mut buffer).await.map_err(error)?;
            if n == 0 {
                break;
            }
            part.hasher.update(&buffer[..n]);
            part.have += n as u64;
            if part.have > len {
                part.restart().await?;
                break;
            }
        }
        Ok(part)
    }

    async fn restart(&mut self) -> Result<(), UpdateError> {
        let path = self.path;
        let error = |source| disk("truncate", path, source);
        self.file.set_len(0).await.map_err(error)?;
        self.file.rewind().await.map_err(error)?;
        (self.hasher, self.have) = (Hasher::new(), 0);
        Ok(())
    }

    async fn append(&mut self, chunk: &[u8]) -> Result<(), UpdateError> {
        let path = self.path;
        self.file.write_all(chunk).await.map_err(|source| disk("write", path, source))?;
        self.hasher.update(chunk);
        self.have += chunk.len() as u64;
        Ok(())
    }
}

fn disk(what: &'static str, path: &Path, source: std::io::Error) -> UpdateError {
    DurableError::io(what, path, source).into()
}

fn unreachable(url: &str, source: reqwest::Error) -> UpdateError {
    UpdateError::Unreachable { url: url.to_owned(), source }
}

fn ok(url: &str, response: Response) -> Result<Response, UpdateError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    Err(UpdateError::Status { url: url.to_owned(), status: status.as_u16() })
}

async fn chunk(url: &str, response: &mut Response) -> Result<Option<bytes::Bytes>, UpdateError> {
    response.chunk().await.map_err(|source| unreachable(url, source))
}

async fn read(url: &str, mut response: Response, limit: u64) -> Result<Vec<u8>, UpdateError> {
    answer::body(&mut response, limit).await.map_err(|unread| match unread {
        Unread::Broken(source) => unreachable(url, source),
        Unread::TooLong => {
            let reason = format!("more than {limit} bytes");
            UpdateError::BadAnswer { url: url.to_owned(), reason }
        }
    })
}
