//! A folder of files named by their SHA-256: the payloads of a dataset on disk, and a worker's
//! cache.
//!
//! What is read is checked against its name every time, so that a damaged file is never used; a
//! damaged one is removed. Writes are atomic but not fsynced: whatever is lost in a power cut is
//! fetched again.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fleetloop_protocol::Digest;
use thiserror::Error;

/// Files by digest.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
    /// Files of other names, which are only read: a person's own.
    files: HashMap<Digest, PathBuf>,
}

/// Why a file cannot be read or written.
#[derive(Debug, Error)]
pub enum BlobError {
    /// There is no such file.
    #[error("cannot read {digest}: it is not in {folder}; fetch it again")]
    Missing {
        /// The file.
        digest: Digest,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The file is not what its name says.
    #[error("cannot read {digest}: the file is damaged and was removed; fetch it again")]
    Damaged {
        /// The file.
        digest: Digest,
    },
    /// A person's file is not what it was.
    #[error("cannot read {path}: it changed meanwhile; give the command again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("cannot use the folder {folder}")]
    Disk {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Blobs {
    /// The folder, made if it is not there.
    ///
    /// # Errors
    /// [`BlobError::Disk`].
    pub fn open(folder: &Path) -> Result<Self, BlobError> {
        let blobs = Self { folder: folder.to_owned(), files: HashMap::new() };
        fs::create_dir_all(folder).map_err(|e| blobs.disk(e))?;
        Ok(blobs)
    }

    /// A person's own files in `folder`, under their digests. They are only read.
    pub fn of_files(folder: &Path, files: HashMap<Digest, PathBuf>) -> Self {
        Self { folder: folder.to_owned(), files }
    }

    /// Whether a file of that name is there.
    pub fn has(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    /// A file's bytes, checked.
    ///
    /// # Errors
    /// [`BlobError`] when it is absent or damaged.
    pub fn get(&self, digest: Digest) -> Result<Vec<u8>, BlobError> {
        let path = self.path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { digest, folder: self.folder.clone() });
            }
            Err(e) => return Err(self.disk(e)),
        };
        if Digest::of(&bytes) != digest {
            if self.files.contains_key(&digest) {
                return Err(BlobError::Changed { path });
            }
            fs::remove_file(&path).map_err(|e| self.disk(e))?;
            return Err(BlobError::Damaged { digest });
        }
        Ok(bytes)
    }

    /// Stores bytes under their digest.
    ///
    /// # Errors
    /// [`BlobError::Disk`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(bytes)?;
            file.persist(self.path(digest)).map_err(|e| e.error)?;
            Ok(())
        };
        write().map_err(|e| self.disk(e))?;
        Ok(digest)
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// [`BlobError::Disk`].
    pub fn remove(&self, digest: Digest) -> Result<(), BlobError> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| self.disk(error)),
        }
    }

    /// Removes the files that were written longest ago until at most `limit_bytes` are left.
    ///
    /// # Errors
    /// [`BlobError::Disk`].
    pub fn shrink(&self, limit_bytes: u64) -> Result<(), BlobError> {
        let list = || -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
            let mut files = Vec::new();
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                let about = entry.metadata()?;
                files.push((about.modified()?, about.len(), entry.path()));
            }
            Ok(files)
        };
        let mut files = list().map_err(|e| self.disk(e))?;
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if total <= limit_bytes {
                break;
            }
            fs::remove_file(path).map_err(|e| self.disk(e))?;
            total -= len;
        }
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.files.get(&digest).cloned().unwrap_or_else(|| self.folder.join(digest.to_string()))
    }

    fn disk(&self, source: io::Error) -> BlobError {
        BlobError::Disk { folder: self.folder.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_never_used_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&dir.path().join("cache")).unwrap();
        let digest = blobs.put(b"payload").unwrap();
        assert_eq!(blobs.get(digest).unwrap(), b"payload");
        fs::File::create(blobs.path(digest)).unwrap().write_all(b"pay").unwrap();
        assert!(matches!(blobs.get(digest), Err(BlobError::Damaged { .. })));
        assert!(matches!(blobs.get(digest), Err(BlobError::Missing { .. })));
    }

    #[test]
    fn the_cache_shrinks_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        for i in 0..10u8 {
            blobs.put(&[i; 100]).unwrap();
        }
        blobs.shrink(350).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
