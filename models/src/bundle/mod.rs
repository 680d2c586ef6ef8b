//! The bundle: one manifest, one digest, one truth.
//!
//! A bundle is `bundle.toml` (TOML, at most 64 KiB) and the files it names by path, length and
//! SHA-256. The manifest's own SHA-256 is the bundle's digest. Unknown keys are errors, and a
//! manifest that parses is valid: shapes, labels and files were checked together.
//!
//! On disk a bundle is a directory; a path in the manifest is one plain file name in it.

mod error;
mod manifest;

use std::fs;
use std::io::Read as _;
use std::path::Path;

use fleetloop_protocol::limits::MANIFEST_BYTES;
use fleetloop_protocol::{BundleDigest, Digest};

use crate::golden::GoldenCases;

pub use error::BundleError;
pub use manifest::{
    Description, FILE_BYTES, FileEntry, Fit, InputSpec, Lineage, MANIFEST_FILE, Manifest,
    PreprocessSpec, Role, Task,
};

/// A manifest's digest, and so the bundle's.
pub fn digest(manifest: &[u8]) -> BundleDigest {
    BundleDigest(Digest::of(manifest))
}

/// A bundle whose every file is the one its manifest names.
#[derive(Debug, Clone)]
pub struct Bundle {
    digest: BundleDigest,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
    model: Vec<u8>,
    golden_bytes: Vec<u8>,
    golden: GoldenCases,
}

impl Bundle {
    /// Reads and checks the bundle in `dir`, which must be the `expected` one if that is given.
    ///
    /// # Errors
    /// [`BundleError`] names the file and what is wrong with it.
    pub fn open(dir: &Path, expected: Option<BundleDigest>) -> Result<Self, BundleError> {
        let manifest_bytes = read(&dir.join(MANIFEST_FILE), MANIFEST_BYTES as u64)?;
        if let Some(expected) = expected {
            let found = digest(&manifest_bytes);
            if found != expected {
                return Err(BundleError::WrongBundle { found, expected });
            }
        }
        let manifest = Manifest::parse(&manifest_bytes)?;
        let file = |role| {
            manifest.file(role).map_or_else(
                || Ok(Vec::new()),
                |entry| read(&dir.join(&entry.path), entry.len_bytes),
            )
        };
        let (model, golden) = (file(Role::Model)?, file(Role::Golden)?);
        Self::from_parts(manifest_bytes, model, golden)
    }

    /// Checks the bytes of a bundle.
    ///
    /// # Errors
    /// [`BundleError`] names the file and what is wrong with it.
    pub fn from_parts(
        manifest_bytes: Vec<u8>,
        model: Vec<u8>,
        golden_bytes: Vec<u8>,
    ) -> Result<Self, BundleError> {
        let manifest = Manifest::parse(&manifest_bytes)?;
        for (role, bytes) in [(Role::Model, &model), (Role::Golden, &golden_bytes)] {
            let Some(entry) = manifest.file(role) else {
                continue;
            };
            let (found_len, found) = (bytes.len() as u64, Digest::of(bytes));
            if found_len != entry.len_bytes || found != entry.sha256 {
                return Err(BundleError::WrongFile {
                    path: entry.path.clone(),
                    found_len,
                    found,
                    expected_len: entry.len_bytes,
                    expected: entry.sha256,
                });
            }
        }
        let golden = GoldenCases::parse(&golden_bytes).map_err(BundleError::Golden)?;
        let digest = digest(&manifest_bytes);
        Ok(Self { digest, manifest_bytes, manifest, model, golden_bytes, golden })
    }

    /// The bundle's digest.
    pub fn digest(&self) -> BundleDigest {
        self.digest
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The ONNX graph's bytes.
    pub fn model(&self) -> &[u8] {
        &self.model
    }

    /// The golden cases.
    pub fn golden(&self) -> &GoldenCases {
        &self.golden
    }

    /// Every file of the bundle by name, the manifest last: written in this order, a directory
    /// that holds a manifest holds everything.
    pub fn files(&self) -> Vec<(&str, &[u8])> {
        let name = |role| self.manifest.file(role).map_or("", |entry| entry.path.as_str());
        vec![
            (name(Role::Model), &self.model),
            (name(Role::Golden), &self.golden_bytes),
            (MANIFEST_FILE, &self.manifest_bytes),
        ]
    }
}

/// Reads a file of at most `limit` bytes; one byte more is read, so that a longer file fails its
/// length check instead of filling memory.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|source| BundleError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}
