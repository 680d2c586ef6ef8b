//! Staging: payloads that devices uploaded over HTTPS and whose samples have not come yet.
//!
//! Layout: `<root>/<device>/<commitment>`, the payload as it is. Invariants: a file under a
//! commitment was checked against it while it came, is synced and appeared by a rename; a device
//! finds its own uploads only. Nothing here has a receipt, so anything may be lost: a sample whose
//! upload is gone is refused for now and its device uploads again. That is also why a backup leaves
//! this folder out.
//!
//! [`Uploads::adopt`] copies a payload to where samples have theirs, checked once more against the
//! sample's signed header, before the sample's row is written; [`Uploads::discard`] removes it here
//! afterwards. A power cut in between leaves a file that the age limit takes.
//!
//! Limits: `limits.upload_device_bytes`, `limits.upload_total_bytes`, `limits.upload_keep_s`, and the
//! disk's floor.

mod ledger;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use fleetloop_models::content::{self, ContentError};
use fleetloop_protocol::digest::Hasher;
use fleetloop_protocol::limits::PAYLOAD_BYTES;
use fleetloop_protocol::sample::VerifiedSample;
use fleetloop_protocol::{DeviceId, Digest, UnixMillis};
use futures::{Stream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use super::StoreError;
use super::payloads::Blobs;
use crate::durable::sync_parent;
use crate::limits::Limits;
use ledger::{Gone, Ledger};

/// How long a device may be silent in the middle of an upload.
const SILENCE: Duration = Duration::from_secs(60);

/// Uploads that are taken over at once: each is in memory, 32 MiB in all.
const ADOPTIONS: usize = 4;

/// An upload that begins.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Whose.
    pub device: DeviceId,
    /// `SHA-256(salt ‖ payload)`.
    pub commitment: Digest,
    /// The salt.
    pub salt: [u8; 16],
    /// The payload's length in bytes.
    pub len: u64,
}

/// Why an upload is not kept.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Above a limit or the disk's floor.
    #[error("cannot take an upload now: there is no room; try again later")]
    NoRoom,
    /// Over [`PAYLOAD_BYTES`].
    #[error("cannot take an upload of {len} bytes: at most {PAYLOAD_BYTES}")]
    TooLarge {
        /// Its length.
        len: u64,
    },
    /// The bytes are not the ones that were named.
    #[error("cannot keep an upload: its bytes are not the ones that {commitment} names")]
    Mismatch {
        /// The commitment.
        commitment: Digest,
    },
    /// The connection broke, or was silent for too long.
    #[error("cannot finish an upload: it was cut off")]
    Cut,
    /// The disk or the database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of the wish to take an upload over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// It lies among the payloads.
    Adopted {
        /// Its digest.
        payload: Digest,
        /// Its length in bytes.
        len: u64,
    },
    /// It is not here, or not what the sample's header names.
    Missing,
    /// It is not what the sample's media type says; it lies here still.
    NoPicture(ContentError),
}

/// The staging folder; cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    root: PathBuf,
    payloads: Blobs,
    ledger: Arc<Mutex<Ledger>>,
    adopting: Arc<Semaphore>,
}

impl Uploads {
    /// Opens (or makes) the folder `root`; what is adopted goes to `payloads`.
    ///
    /// # Errors
    /// The folder cannot be made, listed or swept.
    pub fn open(root: &Path, limits: &Limits, payloads: Blobs) -> Result<Self, StoreError> {
        let mut ledger = Ledger::new(limits);
        let found = std::fs::create_dir_all(root).and_then(|()| list(root));
        let mut found = found.map_err(|source| failed("open", root, source))?;
        found.sort_by_key(|staged| staged.at);
        for Staged { device, commitment, len, at } in found {
            ledger.keep(&device, commitment, len, at);
        }
        let ledger = Arc::new(Mutex::new(ledger));
        let adopting = Arc::new(Semaphore::new(ADOPTIONS));
        Ok(Self { root: root.to_owned(), payloads, ledger, adopting })
    }

    /// Whether an upload is there.
    pub fn has(&self, device: &DeviceId, commitment: Digest) -> bool {
        self.ledger().has(device, commitment)
    }

    /// Keeps what `pieces` yields, durably. The same again is allowed and changes nothing.
    ///
    /// # Errors
    /// [`UploadError`]: nothing of it is kept.
    pub async fn put<E>(
        &self,
        upload: &Incoming,
        pieces: impl Stream<Item = Result<Bytes, E>> + Send,
        now: UnixMillis,
    ) -> Result<(), UploadError> {
        let Incoming { device, commitment, len, .. } = upload;
        if *len > PAYLOAD_BYTES as u64 {
            return Err(UploadError::TooLarge { len: *len });
        }
        let _reserved = self.reserve(device, *len, now).await?;
        let path = self.path(device, *commitment);
        let target = path.clone();
        let (file, staged) = blocking("open", &path, move || stage(&target)).await?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        receive(upload, pieces, &mut file, &path).await?;
        // A power cut before the rename leaves a staged file, which the next start sweeps.
        file.sync_all().await.map_err(|source| failed("sync", &path, source))?;
        let target = path.clone();
        blocking("place", &path, move || {
            staged.persist(&target).map_err(|error| error.error)?;
            sync_parent(&target)
        })
        .await?;
        self.ledger().keep(device, *commitment, *len, now);
        Ok(())
    }

    /// Brings the payload of a sample that says it was uploaded to where payloads lie, durably, if it
    /// is what the sample's header says.
    ///
    /// # Errors
    /// The disk failed, or is full.
    pub async fn adopt(&self, sample: &VerifiedSample) -> Result<Adoption, StoreError> {
        let header = sample.header().get();
        let (device, commitment) = (&header.id.device, header.commitment);
        let path = self.path(device, commitment);
        // Closed never; a few at once, because each is in memory.
        let _turn = self.adopting.acquire().await.map_err(|_| StoreError::Closed)?;
        let read = path.clone();
        let Some(bytes) = blocking("read", &path, move || whole(&read)).await? else {
            self.ledger().forget(device, commitment);
            return Ok(Adoption::Missing);
        };
        if fleetloop_protocol::sample::commitment(sample.salt(), &bytes) != commitment {
            tracing::warn!(%device, %commitment, "an upload is not what its sample names");
            self.discard(device, commitment).await;
            return Ok(Adoption::Missing);
        }
        if let Err(error) = content::check(header.media_type, &bytes) {
            return Ok(Adoption::NoPicture(error));
        }
        let (payload, len) = (Digest::of(&bytes), bytes.len() as u64);
        if !self.payloads.exists(payload).await? {
            self.payloads.put(payload, bytes).await?;
        }
        Ok(Adoption::Adopted { payload, len })
    }

    /// Removes an upload that is needed no more.
    pub async fn discard(&self, device: &DeviceId, commitment: Digest) {
        self.ledger().forget(device, commitment);
        self.remove(vec![(device.clone(), commitment)]).await;
    }

    async fn reserve(
        &self,
        device: &DeviceId,
        len: u64,
        now: UnixMillis,
    ) -> Result<Reserved, UploadError> {
        let room = self.ledger().reserve(device, len, now);
        let reserved = room.granted.then(|| Reserved {
            ledger: Arc::clone(&self.ledger),
            device: device.clone(),
            len,
        });
        if !room.gone.is_empty() {
            self.remove(room.gone).await;
        }
        match self.payloads.room_for(len) {
            Ok(()) => reserved.ok_or(UploadError::NoRoom),
            Err(StoreError::Full { .. }) => Err(UploadError::NoRoom),
            Err(error) => Err(error.into()),
        }
    }

    async fn remove(&self, gone: Vec<Gone>) {
        let paths: Vec<PathBuf> =
            gone.iter().map(|(device, commitment)| self.path(device, *commitment)).collect();
        let removed = tokio::task::spawn_blocking(move || {
            for path in paths {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        // The next start finds it, and the age limit takes it.
                        tracing::warn!(path = %path.display(), %error, "cannot remove an upload");
                    }
                    _ => {}
                }
            }
        });
        drop(removed.await);
    }

    fn path(&self, device: &DeviceId, commitment: Digest) -> PathBuf {
        self.root.join(device.as_str()).join(commitment.to_string())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that is given back when this value goes.
struct Reserved {
    ledger: Arc<Mutex<Ledger>>,
    device: DeviceId,
    len: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.release(&self.device, self.len);
    }
}

/// Writes what comes to `file`, checking it.
async fn receive<E>(
    upload: &Incoming,
    pieces: impl Stream<Item = Result<Bytes, E>> + Send,
    file: &mut tokio::fs::File,
    path: &Path,
) -> Result<(), UploadError> {
    let mismatch = UploadError::Mismatch { commitment: upload.commitment };
    let mut pieces = std::pin::pin!(pieces);
    let mut hasher = Hasher::new();
    hasher.update(&upload.salt);
    let mut len = 0;
    while let Some(piece) =
        tokio::time::timeout(SILENCE, pieces.next()).await.map_err(|_| UploadError::Cut)?
    {
        let piece = piece.map_err(|_| UploadError::Cut)?;
        len += piece.len() as u64;
        if len > upload.len {
            return Err(mismatch);
        }
        hasher.update(&piece);
        file.write_all(&piece).await.map_err(|source| failed("write", path, source))?;
    }
    file.flush().await.map_err(|source| failed("write", path, source))?;
    if len == upload.len && hasher.finish() == upload.commitment { Ok(()) } else { Err(mismatch) }
}

/// An empty file beside `path`, in a folder that is durable.
fn stage(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().ok_or_else(|| io::Error::other("the path has no folder"))?;
    std::fs::create_dir_all(folder)?;
    sync_parent(folder)?;
    tempfile::Builder::new().prefix(".upload-").tempfile_in(folder)
}

/// Does to the file at `path` what waits for the disk, off the tokio workers.
async fn blocking<R: Send + 'static>(
    verb: &str,
    path: &Path,
    work: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> Result<R, StoreError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Panicked)?;
    done.map_err(|source| failed(verb, path, source))
}

/// A file's bytes, at most as many as a payload may have; none when there is no such file.
fn whole(path: &Path) -> io::Result<Option<Bytes>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    // One more than fits its commitment never.
    file.take(PAYLOAD_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes.into()))
}

/// An upload found at the start.
struct Staged {
    device: DeviceId,
    commitment: Digest,
    len: u64,
    at: UnixMillis,
}

/// What is there; what a crash left half written is removed.
fn list(root: &Path) -> io::Result<Vec<Staged>> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(root)? {
        let folder = folder?;
        let name = folder.file_name().to_string_lossy().parse::<DeviceId>();
        let (Ok(device), true) = (name, folder.file_type()?.is_dir()) else { continue };
        for file in std::fs::read_dir(folder.path())? {
            let file = file?;
            let Ok(commitment) = file.file_name().to_string_lossy().parse::<Digest>() else {
                std::fs::remove_file(file.path())?;
                continue;
            };
            let metadata = file.metadata()?;
            let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let at = UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
            found.push(Staged { device: device.clone(), commitment, len: metadata.len(), at });
        }
    }
    Ok(found)
}

fn failed(verb: &str, path: &Path, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full { what: "an upload".into() }
        }
        _ => StoreError::Io { what: format!("{verb} upload {}", path.display()), source },
    }
}
