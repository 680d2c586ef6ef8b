//! What is known of a value before anything runs.

use std::sync::Arc;

use super::Dim;
use super::dim::display;
use crate::onnx::{Elements, HostTensor};

/// A value known at load.
pub type Constant = Arc<HostTensor>;

/// Shape of a value, and the value itself where it is known at load.
///
/// Integers are always known: they are shapes, axes and indices, and live on the host.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Its dimensions.
    pub dims: Vec<Dim>,
    /// Its elements, for a constant.
    pub constant: Option<Constant>,
}

impl Fact {
    /// A float value of that shape, known only when the graph runs.
    pub fn runtime(dims: Vec<Dim>) -> Self {
        Self { dims, constant: None }
    }

    /// A value known now.
    pub fn constant(tensor: Constant) -> Self {
        Self { dims: tensor.shape.iter().map(|d| Dim::Fixed(*d)).collect(), constant: Some(tensor) }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Whether it holds integers.
    pub fn is_int(&self) -> bool {
        matches!(self.constant.as_deref(), Some(HostTensor { elements: Elements::Int(_), .. }))
    }

    /// Its integers, when it holds some.
    pub fn ints(&self) -> Option<&[i64]> {
        match &self.constant.as_deref()?.elements {
            Elements::Int(v) => Some(v),
            Elements::Float(_) => None,
        }
    }

    /// Its floats, when they are known.
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.constant.as_deref()?.elements {
            Elements::Float(v) => Some(v),
            Elements::Int(_) => None,
        }
    }

    /// Its size along `axis`, which must not depend on the batch.
    ///
    /// # Errors
    /// The axis does not exist or depends on the batch.
    pub fn fixed(&self, axis: usize) -> Result<usize, String> {
        self.dims
            .get(axis)
            .and_then(|d| d.fixed())
            .ok_or_else(|| format!("axis {axis} of shape {self} has to be a fixed size"))
    }
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&display(&self.dims))
    }
}
