//! What can be wrong with an ONNX file before its graph is looked at.

use std::path::PathBuf;

use thiserror::Error;

/// Why an ONNX file cannot be read or patched.
#[derive(Debug, Error)]
pub enum OnnxError {
    /// A file cannot be read at all.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than the limit, so it was not parsed.
    #[error(
        "cannot read ONNX model: {bytes} bytes, at most {limit} are accepted; make the model smaller"
    )]
    TooLarge {
        /// Size of the file in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The bytes are no ONNX protobuf message.
    #[error("cannot read ONNX model: the bytes are no ONNX file; check that it was copied whole")]
    NotOnnx(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The message has no graph or declares no operator set.
    #[error("cannot read ONNX model: {0}; export the model again")]
    Incomplete(String),
    /// A tensor's payload is not what its type and shape promise, or is kept where it is not read.
    #[error("cannot read tensor '{tensor}': {why}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A tensor to be overwritten was not found in the file as expected.
    #[error("cannot patch tensor '{tensor}': {why}")]
    Patch {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        why: String,
    },
    /// The protobuf structure ends early or contradicts itself.
    #[error("cannot walk the ONNX file's fields: {0} at byte {1}; the file is damaged")]
    Wire(&'static str, usize),
}
