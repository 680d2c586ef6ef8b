//! Files by content hash: sample payloads and artefacts (model files, reports, datasets).
//!
//! Layout: `<root>/<first two hexadecimal digits>/<digest>`. Invariants: a file that exists under
//! a digest has that digest (written beside, synced, renamed, the directory synced); `put` returns
//! only after that; writing the same again is allowed and changes nothing. Nothing is written once
//! the disk has less free than the floor. A crash leaves at most a staged file (`…#n`), which the
//! next start sweeps.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fleetloop_protocol::Digest;
use fleetloop_protocol::digest::Hasher;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::StoreError;
use crate::durable::sync_parent;

/// A folder of files by content hash; cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    what: &'static str,
    root: PathBuf,
    files: Arc<dyn ObjectStore>,
    floor_bytes: u64,
    /// Held by many while a file has no row yet, by one while files are erased.
    keeping: Arc<RwLock<()>>,
}

impl Blobs {
    /// Opens (or makes) the folder `root`; `what` names its contents in errors, `floor_bytes` is
    /// the free space below which nothing more is written.
    ///
    /// # Errors
    /// The folder cannot be made or swept.
    pub fn open(what: &'static str, root: &Path, floor_bytes: u64) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { what: format!("open {}", root.display()), source };
        std::fs::create_dir_all(root).map_err(failed)?;
        sweep(root).map_err(failed)?;
        let files = LocalFileSystem::new_with_prefix(root)
            .map_err(|source| StoreError::Object {
                what: format!("open {}", root.display()),
                source,
            })?
            .with_fsync(true);
        let (files, keeping) = (Arc::new(files), Arc::default());
        Ok(Self { what, root: root.to_owned(), files, floor_bytes, keeping })
    }

    /// While this is held, nothing is erased: from before a file is put until the row that names it is
    /// on disk.
    pub async fn keep(&self) -> RwLockReadGuard<'_, ()> {
        self.keeping.read().await
    }

    /// While this is held, nobody is between a file and its row: whoever erases looks now whether a
    /// row names the file.
    pub async fn erasing(&self) -> RwLockWriteGuard<'_, ()> {
        self.keeping.write().await
    }

    /// Removes a file, durably. One that is not there is fine.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn erase(&self, digest: Digest) -> Result<(), StoreError> {
        let path = self.root.join(location(digest).to_string());
        let what = format!("erase {} {digest}", self.what);
        let removed = tokio::task::spawn_blocking(move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync_parent(&path)),
        });
        let removed = removed.await.map_err(|_| StoreError::Panicked)?;
        removed.map_err(|source| StoreError::Io { what, source })
    }

    /// Stores `bytes` under `digest`, durably.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] when they are not what the digest says, [`StoreError::Full`] below
    /// the floor.
    pub async fn put(&self, digest: Digest, bytes: Bytes) -> Result<(), StoreError> {
        if Digest::of(&bytes) != digest {
            return Err(self.mismatch(digest));
        }
        self.room_for(bytes.len() as u64)?;
        self.files
            .put(&location(digest), PutPayload::from_bytes(bytes))
            .await
            .map_err(|source| self.failed("write", digest, source))?;
        Ok(())
    }

    /// Stores what `stream` yields, at most `limit_bytes`, under `digest`, durably, and returns its
    /// length. Nothing appears under the digest unless all of it matched.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`StoreError::Invalid`] over the limit; the stream's own.
    pub async fn put_stream<E>(
        &self,
        digest: Digest,
        limit_bytes: u64,
        stream: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<u64, StoreError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.room_for(0)?;
        let mut upload = self
            .files
            .put_multipart(&location(digest))
            .await
            .map_err(|source| self.failed("write", digest, source))?;
        let mut hasher = Hasher::new();
        let mut len = 0_u64;
        let mut stream = std::pin::pin!(stream);
        let outcome = loop {
            let piece = match stream.next().await {
                None => break Ok(()),
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    break Err(StoreError::Io {
                        what: format!("receive {} {}", self.what, digest.short()),
                        source: std::io::Error::other(error),
                    });
                }
            };
            len += piece.len() as u64;
            if len > limit_bytes {
                break Err(StoreError::Invalid {
                    what: format!("cannot store {}: over {limit_bytes} bytes", self.what),
                });
            }
            if let Err(full) = self.room_for(piece.len() as u64) {
                break Err(full);
            }
            hasher.update(&piece);
            if let Err(source) = upload.put_part(PutPayload::from_bytes(piece)).await {
                break Err(self.failed("write", digest, source));
            }
        };
        let outcome = outcome.and_then(|()| {
            if hasher.finish() == digest { Ok(()) } else { Err(self.mismatch(digest)) }
        });
        if let Err(error) = outcome {
            // The staged file goes; should even that fail, the next start sweeps it.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.complete().await.map_err(|source| self.failed("write", digest, source))?;
        Ok(len)
    }

    /// Whether there is a file of that digest.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn exists(&self, digest: Digest) -> Result<bool, StoreError> {
        match self.size(digest).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The length of the file in bytes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none.
    pub async fn size(&self, digest: Digest) -> Result<u64, StoreError> {
        let meta = self.files.head(&location(digest)).await;
        meta.map(|meta| meta.size).map_err(|source| self.failed("read", digest, source))
    }

    /// The whole file, checked against its digest. For files that fit in memory.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Mismatch`] when the disk damaged it.
    pub async fn get(&self, digest: Digest) -> Result<Bytes, StoreError> {
        let failed = |source| self.failed("read", digest, source);
        let result = self.files.get(&location(digest)).await.map_err(failed)?;
        let bytes = result.bytes().await.map_err(failed)?;
        if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(self.mismatch(digest)) }
    }

    /// The bytes of `range` (all of the file when none) piece by piece, unchecked: whoever gathers
    /// the whole checks it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such file.
    pub async fn stream(
        &self,
        digest: Digest,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes, std::io::Error>>, StoreError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let result = self
            .files
            .get_opts(&location(digest), options)
            .await
            .map_err(|source| self.failed("read", digest, source))?;
        Ok(result.into_stream().map_err(std::io::Error::other).boxed())
    }

    /// The space that the disk has left, in bytes.
    ///
    /// # Errors
    /// The system does not say.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|error| StoreError::Io {
            what: format!("ask for the free space of {}", self.root.display()),
            source: error.into(),
        })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Whether the disk has room for `len` more bytes above the floor.
    ///
    /// # Errors
    /// [`StoreError::Full`] when not.
    pub fn room_for(&self, len: u64) -> Result<(), StoreError> {
        if self.free_bytes()? < self.floor_bytes.saturating_add(len) {
            return Err(StoreError::Full { what: self.what.to_owned() });
        }
        Ok(())
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn mismatch(&self, expected: Digest) -> StoreError {
        StoreError::Mismatch { what: self.what.to_owned(), expected }
    }

    fn failed(&self, verb: &str, digest: Digest, source: object_store::Error) -> StoreError {
        if matches!(source, object_store::Error::NotFound { .. }) {
            return StoreError::NotFound { what: format!("{} {digest}", self.what) };
        }
        if is_disk_full(&source) {
            return StoreError::Full { what: self.what.to_owned() };
        }
        StoreError::Object { what: format!("{verb} {} {digest}", self.what), source }
    }
}

fn location(digest: Digest) -> object_store::path::Path {
    let text = digest.to_string();
    object_store::path::Path::from_iter([&text[..2], &text[..]])
}

fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            let kind = io.kind();
            return matches!(
                kind,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            );
        }
        source = error.source();
    }
    false
}

/// Removes what a crash left staged.
fn sweep(root: &Path) -> std::io::Result<()> {
    for folder in std::fs::read_dir(root)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(folder.path())? {
            let file = file?;
            if file.file_name().to_string_lossy().contains('#') {
                std::fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bytes: &Bytes) -> impl Stream<Item = Result<Bytes, std::io::Error>> + use<> {
        let pieces: Vec<_> =
            bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        futures::stream::iter(pieces)
    }

    #[tokio::test]
    async fn what_is_put_is_got_again_and_only_under_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open("artefact", dir.path(), 0).unwrap();
        let bytes = Bytes::from(vec![7; 600_000]);
        let digest = Digest::of(&bytes);
        blobs.put(digest, bytes.clone()).await.unwrap();
        blobs.put(digest, bytes.clone()).await.unwrap();
        assert_eq!(blobs.get(digest).await.unwrap(), bytes);
        let wrong = blobs.put(Digest::of(b"other"), bytes.clone()).await;
        assert!(matches!(wrong, Err(StoreError::Mismatch { .. })));
        let wrong = blobs.put_stream(Digest::of(b"other"), 1 << 20, pieces(&bytes)).await;
        assert!(matches!(wrong, Err(StoreError::Mismatch { .. })));
        assert!(!blobs.exists(Digest::of(b"other")).await.unwrap());
        let part: Vec<Bytes> =
            blobs.stream(digest, Some(10..20)).await.unwrap().try_collect().await.unwrap();
        assert_eq!(part.concat().len(), 10);
    }

    #[tokio::test]
    async fn a_stream_over_its_limit_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open("artefact", dir.path(), 0).unwrap();
        let bytes = Bytes::from(vec![7; 600_000]);
        let digest = Digest::of(&bytes);
        let over = blobs.put_stream(digest, 500_000, pieces(&bytes)).await;
        assert!(matches!(over, Err(StoreError::Invalid { .. })));
        let folder = dir.path().join(&digest.to_string()[..2]);
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
        assert_eq!(blobs.put_stream(digest, 600_000, pieces(&bytes)).await.unwrap(), 600_000);
    }

    #[tokio::test]
    async fn below_the_floor_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open("payload", dir.path(), u64::MAX).unwrap();
        let bytes = Bytes::from_static(b"x");
        let full = blobs.put(Digest::of(&bytes), bytes.clone()).await;
        assert!(matches!(full, Err(StoreError::Full { .. })));
        assert!(!blobs.exists(Digest::of(&bytes)).await.unwrap());
    }
}
