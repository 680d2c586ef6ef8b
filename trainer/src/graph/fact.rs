//! What is known of a value before anything runs.

use std::sync::Arc;

use crate::onnx::{Element, Elements, HostTensor, Kind};

/// A value known at load.
pub type Constant = Arc<HostTensor>;

/// Type and shape of a value, and the value itself where it is known at load.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The type of its elements in the file. Floats are computed as `f32`, integers as `i64`.
    pub element: Element,
    /// Its dimensions; empty for a single number.
    pub dims: Vec<usize>,
    /// Its elements, for a constant.
    pub constant: Option<Constant>,
}

impl Fact {
    /// A value of that type and shape, known only when the graph runs.
    pub fn runtime(element: Element, dims: Vec<usize>) -> Self {
        Self { element, dims, constant: None }
    }

    /// A float value of that shape, known only when the graph runs.
    pub fn float(dims: Vec<usize>) -> Self {
        Self::runtime(Element::F32, dims)
    }

    /// A value of the same type and another shape, known only when the graph runs.
    pub fn reshaped(&self, dims: Vec<usize>) -> Self {
        Self::runtime(self.element, dims)
    }

    /// A value known now.
    pub fn constant(tensor: Constant) -> Self {
        Self { element: tensor.element, dims: tensor.shape.clone(), constant: Some(tensor) }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// What it is computed as.
    pub fn kind(&self) -> Kind {
        self.element.kind()
    }

    /// Its integers, when they are known.
    pub fn ints(&self) -> Option<&[i64]> {
        match &self.constant.as_deref()?.elements {
            Elements::Int(v) => Some(v),
            _ => None,
        }
    }

    /// Its floats, when they are known.
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.constant.as_deref()?.elements {
            Elements::Float(v) => Some(v),
            _ => None,
        }
    }
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.dims)
    }
}
