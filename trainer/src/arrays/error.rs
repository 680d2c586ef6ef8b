//! Why arrays cannot be used.

use std::path::PathBuf;

use thiserror::Error;
use zip::result::ZipError;

use super::FILE_BYTES;
use crate::train::Loss;

/// Why arrays cannot be used.
#[derive(Debug, Error)]
pub enum ArraysError {
    /// The file cannot be read.
    #[error("cannot read arrays {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is over the limit.
    #[error("cannot read arrays: the file has {0} bytes, at most {FILE_BYTES} are read; split it")]
    TooLarge(u64),
    /// The file is no archive.
    #[error("cannot read arrays: the file is no .npz archive; write it with numpy.savez")]
    Archive(#[source] ZipError),
    /// There are no inputs.
    #[error(
        "cannot read arrays: there is no array x among {0:?}; write it with numpy.savez(…, x=…)"
    )]
    NoInputs(Vec<String>),
    /// An array cannot be used.
    #[error("cannot read array {name}: {why}")]
    Array {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The answers do not suit the loss.
    #[error("cannot use the arrays with loss {loss}: {why}")]
    Answers {
        /// The loss.
        loss: Loss,
        /// What is wrong.
        why: String,
    },
    /// A part of the samples is empty.
    #[error(
        "cannot hold out {share} of {samples} samples: there is none to {purpose}; give more samples, another --eval-share, or --eval"
    )]
    EmptyPart {
        /// The share held out.
        share: f64,
        /// Samples there are.
        samples: usize,
        /// What they were for.
        purpose: &'static str,
    },
}
