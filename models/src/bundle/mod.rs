//! The bundle: one manifest, one digest, one truth.
//!
//! A bundle is `bundle.toml` (TOML, at most 64 KiB) and the files it names by path, length and
//! SHA-256. The manifest's own SHA-256 is the bundle's digest. Unknown keys are errors, and a
//! manifest that parses is valid: shapes, labels and files were checked together.
//!
//! On disk a bundle is a directory; a path in the manifest is one plain file name in it. In memory
//! its files are [`Files`], by role.

mod error;
mod manifest;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use fleetloop_protocol::limits::MANIFEST_BYTES;
use fleetloop_protocol::{BundleDigest, Digest};

use crate::golden::GoldenCases;
use crate::graph::Graph;
use crate::reference::{Reference, ReferenceError};

pub use crate::graph::output::OutputKind;
pub use error::BundleError;
pub use manifest::{
    Description, FILE_BYTES, FileEntry, Fit, InputSpec, Lineage, MANIFEST_FILE, Manifest,
    PreprocessSpec, Role, Task,
};

/// A manifest's digest, and so the bundle's.
pub fn digest(manifest: &[u8]) -> BundleDigest {
    BundleDigest(Digest::of(manifest))
}

/// The bytes of a bundle's files, by role.
pub type Files = BTreeMap<Role, Vec<u8>>;

/// A bundle whose every file is the one its manifest names, and whose graph was checked.
#[derive(Debug, Clone)]
pub struct Bundle {
    digest: BundleDigest,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
    /// The model's file.
    graph: Graph,
    /// The others.
    files: Files,
    golden: GoldenCases,
    reference: Option<Reference>,
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
        let mut files = Files::new();
        for entry in &manifest.files {
            files.insert(entry.role, read(&dir.join(&entry.path), entry.len_bytes)?);
        }
        Self::from_parts(manifest_bytes, files)
    }

    /// Checks the bytes of a bundle. Files that its manifest does not name are dropped.
    ///
    /// # Errors
    /// [`BundleError`] names the file and what is wrong with it.
    pub fn from_parts(manifest_bytes: Vec<u8>, mut files: Files) -> Result<Self, BundleError> {
        let manifest = Manifest::parse(&manifest_bytes)?;
        files.retain(|role, _| manifest.file(*role).is_some());
        for entry in &manifest.files {
            let bytes = files.entry(entry.role).or_default();
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
        let graph = Graph::check(files.remove(&Role::Model).unwrap_or_default())
            .map_err(BundleError::Graph)?;
        let golden =
            GoldenCases::parse(bytes(&files, Role::Golden)).map_err(BundleError::Golden)?;
        let said = graph.reading().admits(manifest.output, &golden.outputs());
        said.map_err(BundleError::Output)?;
        let reference = files.get(&Role::Reference).map(|bytes| reference(bytes, &manifest));
        let reference = reference.transpose().map_err(BundleError::Reference)?;
        let digest = digest(&manifest_bytes);
        Ok(Self { digest, manifest_bytes, manifest, graph, files, golden, reference })
    }

    /// The bundle's digest.
    pub fn digest(&self) -> BundleDigest {
        self.digest
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The ONNX graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The golden cases.
    pub fn golden(&self) -> &GoldenCases {
        &self.golden
    }

    /// What its answers looked like where it was made; none when that was not recorded.
    pub fn reference(&self) -> Option<&Reference> {
        self.reference.as_ref()
    }

    /// Every file of the bundle by name, the manifest last: written in this order, a directory
    /// that holds a manifest holds everything.
    pub fn files(&self) -> Vec<(&str, &[u8])> {
        let named = self.manifest.files.iter();
        let files = named.map(|file| match file.role {
            Role::Model => (file.path.as_str(), self.graph.bytes()),
            other => (file.path.as_str(), bytes(&self.files, other)),
        });
        files.chain([(MANIFEST_FILE, self.manifest_bytes.as_slice())]).collect()
    }
}

fn bytes(files: &Files, role: Role) -> &[u8] {
    files.get(&role).map_or(&[], Vec::as_slice)
}

/// The reference in `bytes`, which a model of that manifest can have made.
///
/// # Errors
/// [`ReferenceError`]: it cannot be read, or counts other classes.
pub fn reference(bytes: &[u8], manifest: &Manifest) -> Result<Reference, ReferenceError> {
    Reference::parse(bytes)?.of_labels(manifest.labels.len())
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
