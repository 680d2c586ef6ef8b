//! A node as its builder sees it: attributes, what is known of the inputs, and the checks that every
//! builder begins with.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::graph::Fact;
use crate::onnx::Kind;
use crate::onnx::attributes::Attributes;

/// A node as its builder sees it.
pub struct NodeView<'a> {
    /// Its attributes.
    pub attributes: Attributes<'a>,
    /// The model's operator set.
    pub opset: i64,
    /// What is known of its inputs; `None` for one left out.
    pub inputs: Vec<Option<Fact>>,
    /// Places in the parameter list of inputs that training changes.
    pub parameters: Vec<Option<usize>>,
    /// For each of its outputs whether it is read.
    pub outputs: Vec<bool>,
    /// Inputs whose values were read by the builder: the kernel does not get them.
    pub known: RefCell<HashSet<usize>>,
}

impl<'a> NodeView<'a> {
    /// A node with nothing read yet.
    pub fn new(
        attributes: Attributes<'a>,
        opset: i64,
        inputs: Vec<Option<Fact>>,
        parameters: Vec<Option<usize>>,
        outputs: Vec<bool>,
    ) -> Self {
        Self { attributes, opset, inputs, parameters, outputs, known: RefCell::default() }
    }

    /// The fact of an input that has to be there and to have elements.
    pub(super) fn input(&self, place: usize) -> Result<&Fact, String> {
        let fact = self.optional(place).ok_or_else(|| format!("input {place} is missing"))?;
        if fact.count() == 0 {
            return Err(format!("input {place} of shape {fact} has no elements"));
        }
        Ok(fact)
    }

    /// The fact of an input that may be left out.
    pub(super) fn optional(&self, place: usize) -> Option<&Fact> {
        self.inputs.get(place).and_then(Option::as_ref)
    }

    /// The fact of a float input that has to be there.
    pub(super) fn float(&self, place: usize) -> Result<&Fact, String> {
        self.of_kind(place, Kind::Float)
    }

    /// The fact of an input of that kind.
    pub(super) fn of_kind(&self, place: usize, kind: Kind) -> Result<&Fact, String> {
        let fact = self.input(place)?;
        if fact.kind() != kind {
            return Err(format!("input {place} is {:?}, {kind:?} is needed", fact.kind()));
        }
        Ok(fact)
    }

    /// The integers of an input, which have to be known at load; it may be empty.
    pub(super) fn ints(&self, place: usize) -> Result<&[i64], String> {
        let fact = self.optional(place).ok_or_else(|| format!("input {place} is missing"))?;
        self.known.borrow_mut().insert(place);
        fact.ints().ok_or_else(|| {
            format!("input {place} has to be integers known when the model is loaded")
        })
    }

    /// The integers of an input that may be left out.
    pub(super) fn optional_ints(&self, place: usize) -> Result<Option<&[i64]>, String> {
        if self.optional(place).is_some() { self.ints(place).map(Some) } else { Ok(None) }
    }

    /// A float scalar known at load; `None` when the input is left out.
    pub(super) fn scalar(&self, place: usize) -> Result<Option<f32>, String> {
        let Some(fact) = self.optional(place) else { return Ok(None) };
        self.known.borrow_mut().insert(place);
        match fact.floats() {
            Some([value]) => Ok(Some(*value)),
            _ => Err(format!("input {place} has to be one number known when the model is loaded")),
        }
    }

    /// The axes a node works on: an attribute up to `last_attribute`, input `place` after it.
    pub(super) fn axes(&self, place: usize, last_attribute: i64) -> Result<Option<&[i64]>, String> {
        if self.opset > last_attribute {
            self.optional_ints(place)
        } else {
            self.attributes.ints("axes")
        }
    }

    /// Refuses nodes whose further outputs are used.
    pub(super) fn only_output(&self) -> Result<(), String> {
        if self.outputs.iter().skip(1).any(|read| *read) {
            Err("outputs after the first are not computed".into())
        } else {
            Ok(())
        }
    }
}
