//! Why a bundle cannot be used.

use std::path::PathBuf;

use fleetloop_protocol::limits::MANIFEST_BYTES;
use fleetloop_protocol::{BundleDigest, Digest};

use crate::golden::GoldenError;
use crate::graph::GraphError;
use crate::graph::output::OutputError;
use crate::reference::ReferenceError;

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file could not be read.
    #[error("cannot read bundle file {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The manifest is over its limit.
    #[error("cannot read bundle manifest: {len} bytes, the limit is {MANIFEST_BYTES}")]
    ManifestTooLarge {
        /// Its length in bytes.
        len: usize,
    },
    /// The manifest is not TOML, or not this format.
    #[error("cannot read bundle manifest: {reason}")]
    ManifestSyntax {
        /// What the parser met.
        reason: String,
    },
    /// The manifest contradicts itself; all that is wrong with it.
    #[error("bundle manifest is not valid: {}", problems.join("; "))]
    Invalid {
        /// One entry a problem.
        problems: Vec<String>,
    },
    /// Not the bundle that was asked for.
    #[error("bundle is {found}, expected {expected}; fetch it again")]
    WrongBundle {
        /// The digest found.
        found: BundleDigest,
        /// The digest wanted.
        expected: BundleDigest,
    },
    /// A file is not the one the manifest names.
    #[error(
        "bundle file {path} is {found_len} bytes with SHA-256 {found}, the manifest says \
         {expected_len} bytes with {expected}; fetch it again"
    )]
    WrongFile {
        /// Its name.
        path: String,
        /// The length found.
        found_len: u64,
        /// The digest found.
        found: Digest,
        /// The length wanted.
        expected_len: u64,
        /// The digest wanted.
        expected: Digest,
    },
    /// The graph is refused.
    #[error("cannot use the bundle's model")]
    Graph(#[source] GraphError),
    /// The manifest says something else of the output than graph or golden cases.
    #[error("cannot use the bundle's model")]
    Output(#[source] OutputError),
    /// The golden cases cannot be read.
    #[error("cannot read the bundle's golden cases")]
    Golden(#[source] GoldenError),
    /// The reference cannot be read.
    #[error("cannot read the bundle's reference")]
    Reference(#[source] ReferenceError),
}
