//! Overwrites weights inside the original file.
//!
//! Only the payload bytes of the named weights change; every other byte stays as it was, which
//! re-serialising would not guarantee. A weight is an initializer, or the value of a Constant node
//! under the name of the node's output. Payloads are little-endian; a weight of 16 bits is
//! rounded to the nearest even, which the record's digest of the file covers. Integers, the levels of
//! a quantised weight, are given as floats that hold them.

use std::collections::HashMap;
use std::ops::Range;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use super::numbers::{
    ATTRIBUTE_TENSOR, GRAPH_INITIALIZER, GRAPH_NODE, MODEL_GRAPH, NODE_ATTRIBUTE, NODE_OUTPUT,
    TENSOR_DATA_TYPE, TENSOR_DOUBLE_DATA, TENSOR_FLOAT_DATA, TENSOR_NAME, TENSOR_RAW_DATA,
};
use super::{Element, Kind, OnnxError, wire};

/// Where a tensor was overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Name of the weight.
    pub name: String,
    /// First byte of its payload in the file.
    pub offset_bytes: u64,
    /// Length of its payload in bytes.
    pub length_bytes: u64,
}

/// The new file and the list of what differs from the old one, in order of offset.
#[derive(Debug, Clone)]
pub struct Patched {
    /// The file, as long as the original.
    pub bytes: Vec<u8>,
    /// What was overwritten.
    pub patches: Vec<Patch>,
}

/// Writes `values` (by the weights' names) into a copy of `original`.
///
/// # Errors
/// [`OnnxError::Patch`] when a name is absent, or its payload is not one run of as many floats.
pub fn patch(original: &[u8], values: &HashMap<String, Vec<f32>>) -> Result<Patched, OnnxError> {
    let counts = values.iter().map(|(name, values)| (name.clone(), values.len())).collect();
    let mut places = Search { original, counts: &counts, found: HashMap::new() }.places()?;
    places.sort_by_key(|(_, place)| place.payload.start);
    let mut bytes = original.to_vec();
    let mut patches = Vec::with_capacity(places.len());
    for (name, Place { payload, element }) in places {
        let chunks = bytes[payload.clone()].chunks_exact_mut(element.width());
        for (chunk, value) in chunks.zip(&values[&name]) {
            write(*value, element, chunk);
        }
        patches.push(Patch {
            name,
            offset_bytes: payload.start as u64,
            length_bytes: payload.len() as u64,
        });
    }
    Ok(Patched { bytes, patches })
}

/// Checks that weights of those names and as many elements can be overwritten.
///
/// # Errors
/// As [`patch()`].
pub fn writable(original: &[u8], counts: &HashMap<String, usize>) -> Result<(), OnnxError> {
    Search { original, counts, found: HashMap::new() }.places().map(drop)
}

fn write(value: f32, element: Element, to: &mut [u8]) {
    match element {
        Element::F64 => to.copy_from_slice(&f64::from(value).to_le_bytes()),
        Element::F16 => to.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
        Element::Bf16 => to.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        Element::F32 => to.copy_from_slice(&value.to_le_bytes()),
        // A float may lie beyond the type: the largest of 32 bits is 2^31 as one.
        _ => {
            let (low, high) = element.range();
            let level = (value as i64).clamp(low, high);
            to.copy_from_slice(&level.to_le_bytes()[..to.len()]);
        }
    }
}

/// Where a weight's payload lies, and how it is written.
struct Place {
    payload: Range<usize>,
    element: Element,
}

struct Search<'a> {
    original: &'a [u8],
    counts: &'a HashMap<String, usize>,
    found: HashMap<String, Place>,
}

impl Search<'_> {
    fn places(mut self) -> Result<Vec<(String, Place)>, OnnxError> {
        for graph in self.fields(0..self.original.len())? {
            if let (MODEL_GRAPH, Some(within)) = (graph.number, graph.bytes()) {
                self.graph(within)?;
            }
        }
        match self.counts.keys().find(|name| !self.found.contains_key(*name)) {
            Some(missing) => Err(refuse(missing, "the file has no such weight")),
            None => Ok(self.found.into_iter().collect()),
        }
    }

    fn fields(&self, within: Range<usize>) -> Result<Vec<wire::Field>, OnnxError> {
        wire::fields(self.original, within)
    }

    fn graph(&mut self, within: Range<usize>) -> Result<(), OnnxError> {
        for part in self.fields(within)? {
            match (part.number, part.bytes()) {
                (GRAPH_INITIALIZER, Some(within)) => {
                    let fields = self.fields(within)?;
                    let name =
                        wire::text(self.original, &fields, TENSOR_NAME).map(ToOwned::to_owned);
                    self.tensor(name, &fields)?;
                }
                (GRAPH_NODE, Some(within)) => self.node(within)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, within: Range<usize>) -> Result<(), OnnxError> {
        let fields = self.fields(within)?;
        let name = wire::text(self.original, &fields, NODE_OUTPUT).map(ToOwned::to_owned);
        if !name.as_ref().is_some_and(|name| self.counts.contains_key(name)) {
            return Ok(());
        }
        for attribute in fields.iter().filter(|f| f.number == NODE_ATTRIBUTE) {
            for part in self.fields(attribute.bytes().unwrap_or_default())? {
                if let (ATTRIBUTE_TENSOR, Some(within)) = (part.number, part.bytes()) {
                    self.tensor(name.clone(), &self.fields(within)?)?;
                }
            }
        }
        Ok(())
    }

    fn tensor(&mut self, name: Option<String>, fields: &[wire::Field]) -> Result<(), OnnxError> {
        let count = name.and_then(|name| Some((name.clone(), *self.counts.get(&name)?)));
        let Some((name, count)) = count else { return Ok(()) };
        let data_type = fields.iter().rev().find_map(|field| match field.value {
            wire::Value::Number(value) if field.number == TENSOR_DATA_TYPE => Some(value),
            _ => None,
        });
        let data_type = data_type.and_then(|value| i32::try_from(value).ok());
        let element = Element::of(data_type.unwrap_or_default()).ok();
        let element = element.filter(|e| e.kind() != Kind::Bool);
        let element = element.ok_or_else(|| refuse(&name, "it does not hold numbers"))?;
        let typed = match element {
            Element::F64 => TENSOR_DOUBLE_DATA,
            Element::F32 => TENSOR_FLOAT_DATA,
            _ => TENSOR_RAW_DATA,
        };
        let holds = |f: &&wire::Field| f.number == TENSOR_RAW_DATA || f.number == typed;
        let payloads = fields.iter().filter(holds).filter_map(wire::Field::bytes);
        let mut payloads = payloads.filter(|payload| !payload.is_empty());
        let (Some(payload), None) = (payloads.next(), payloads.next()) else {
            return Err(refuse(&name, "its payload is not one run of bytes"));
        };
        if payload.len() != count * element.width() {
            return Err(refuse(&name, "its payload has another length than the new values"));
        }
        let place = Place { payload, element };
        if self.found.insert(name.clone(), place).is_some() {
            return Err(refuse(&name, "it appears twice in the file"));
        }
        Ok(())
    }
}

fn refuse(weight: &str, why: &str) -> OnnxError {
    OnnxError::Patch { tensor: weight.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_at_the_edge_of_its_type_keeps_its_sign() {
        let written = |value: f32, element: Element| {
            let mut bytes = vec![0; element.width()];
            write(value, element, &mut bytes);
            bytes
        };
        assert_eq!(written(i32::MAX as f32, Element::I32), i32::MAX.to_le_bytes());
        assert_eq!(written(i32::MIN as f32, Element::I32), i32::MIN.to_le_bytes());
        assert_eq!(written(u32::MAX as f32, Element::U32), u32::MAX.to_le_bytes());
        assert_eq!(written(128.0, Element::I8), i8::MAX.to_le_bytes());
        assert_eq!(written(-1.0, Element::U8), [0]);
        assert_eq!(written(-3.0, Element::I16), (-3i16).to_le_bytes());
    }
}
