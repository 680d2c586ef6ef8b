//! The sizes that a file leaves open, and the inputs that follow from them.
//!
//! A graph is planned for concrete shapes: everything that follows from a shape is then known, and
//! another batch is simply planned again. The first dimension of an input is the batch when it is
//! declared, whatever its size: exporters bake in the batch they traced with.

use std::collections::BTreeMap;

use super::{Fact, GraphError};
use crate::onnx::Model;
use crate::onnx::read::{DeclaredDim, DeclaredValue};

/// The sizes that a file leaves open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Samples at a time.
    pub batch: usize,
    /// Other open dimensions by their name in the file, or `input.axis` where they have none.
    pub named: BTreeMap<String, usize>,
}

impl Sizes {
    /// That batch, and nothing else open.
    pub fn batch(batch: usize) -> Self {
        Self { batch, named: BTreeMap::new() }
    }

    /// A batch of samples of `shape`, which says what the first input leaves open.
    pub fn samples(model: &Model, batch: usize, shape: &[usize]) -> Self {
        let name = model.inputs.first().map_or("", |input| &input.name);
        let axes = shape.iter().enumerate();
        Self {
            batch,
            named: axes.map(|(at, size)| (format!("{name}.{}", at + 1), *size)).collect(),
        }
    }

    /// Type and shape of every input of `model`.
    ///
    /// # Errors
    /// [`GraphError::Shape`] names what the file leaves open and nobody gave.
    pub fn inputs(&self, model: &Model) -> Result<Vec<Fact>, GraphError> {
        let fact = |input: &DeclaredValue| {
            let element = input.element().map_err(GraphError::Shape)?;
            Ok(Fact::runtime(element, self.shape(input)?))
        };
        model.inputs.iter().map(fact).collect()
    }

    fn shape(&self, input: &DeclaredValue) -> Result<Vec<usize>, GraphError> {
        let name = &input.name;
        let Some(dims) = input.dims.as_ref() else { return self.undeclared(name) };
        dims.iter().enumerate().map(|(axis, dim)| self.size(name, axis, dim)).collect()
    }

    /// The shape of an input that declares none: the batch, and what was given for each dimension.
    fn undeclared(&self, input: &str) -> Result<Vec<usize>, GraphError> {
        let given = (1..).map_while(|axis| self.named.get(&format!("{input}.{axis}")).copied());
        let shape: Vec<usize> = std::iter::once(self.batch).chain(given).collect();
        if shape.len() > 1 {
            return Ok(shape);
        }
        Err(GraphError::Shape(format!(
            "input '{input}' declares no shape; give the sizes of a sample, as in --size {input}.1=320"
        )))
    }

    fn size(&self, input: &str, axis: usize, dim: &DeclaredDim) -> Result<usize, GraphError> {
        let place = format!("{input}.{axis}");
        match dim {
            _ if axis == 0 => Ok(self.batch),
            DeclaredDim::Fixed(n) => Ok(*n),
            DeclaredDim::Open(open) => {
                let known = if open.is_empty() { &place } else { open };
                self.named.get(known).or_else(|| self.named.get(&place)).copied().ok_or_else(
                    || {
                        GraphError::Shape(format!(
                            "dimension {axis} of input '{input}' has no fixed size; give one, as in --size {known}=320"
                        ))
                    },
                )
            }
        }
    }
}
