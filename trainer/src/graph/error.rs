//! Why a graph cannot be trained.

use std::fmt;

use thiserror::Error;

use crate::onnx::OnnxError;

/// One node that cannot be done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The node's name, or its output's where it has none.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The reason.
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}': {}", self.op, self.node, self.why)
    }
}

/// Why a model cannot be loaded for training.
#[derive(Debug, Error)]
pub enum GraphError {
    /// The file itself cannot be read.
    #[error("cannot load model for training")]
    Onnx(#[from] OnnxError),
    /// Some nodes cannot be done; all of them are listed.
    #[error("cannot load model for training: {} of its nodes cannot be done:\n{}", .0.len(), list(.0))]
    Refused(Vec<Refusal>),
    /// The graph's inputs or outputs are not what training needs.
    #[error("cannot load model for training: {0}")]
    Shape(String),
}

fn list(refusals: &[Refusal]) -> String {
    refusals.iter().map(|r| format!("  - {r}")).collect::<Vec<_>>().join("\n")
}
