//! Overwrites tensor payloads inside the original file.
//!
//! Only the payload bytes of the named initializers change; every other byte stays as it was, which
//! re-serialising would not guarantee. Path of a payload: `ModelProto.graph` = 7,
//! `GraphProto.initializer` = 5, `TensorProto` `name` = 8, `float_data` = 4 (packed), `raw_data` = 9;
//! both payloads are little-endian `f32`, so the same bytes fit either.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{OnnxError, wire};

const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALIZER: u64 = 5;
const TENSOR_FLOAT_DATA: u64 = 4;
const TENSOR_NAME: u64 = 8;
const TENSOR_RAW_DATA: u64 = 9;

/// Where a tensor was overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Name of the initializer.
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

/// Writes `values` (by initializer name) into a copy of `original`.
///
/// # Errors
/// [`OnnxError::Patch`] when a name is absent, or its payload is not one run of as many floats.
pub fn patch(original: &[u8], values: &HashMap<String, Vec<f32>>) -> Result<Patched, OnnxError> {
    let mut places = find(original, values)?;
    places.sort_by_key(|(_, range)| range.start);
    let mut bytes = original.to_vec();
    let mut patches = Vec::with_capacity(places.len());
    for (name, range) in places {
        for (place, value) in bytes[range.clone()].chunks_exact_mut(4).zip(&values[&name]) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        patches.push(Patch {
            name,
            offset_bytes: range.start as u64,
            length_bytes: range.len() as u64,
        });
    }
    Ok(Patched { bytes, patches })
}

fn find(
    original: &[u8],
    values: &HashMap<String, Vec<f32>>,
) -> Result<Vec<(String, Range<usize>)>, OnnxError> {
    let mut found = HashMap::new();
    for graph in
        wire::fields(original, 0..original.len())?.into_iter().filter(|f| f.number == MODEL_GRAPH)
    {
        for tensor in wire::fields(original, graph.payload)?
            .into_iter()
            .filter(|f| f.number == GRAPH_INITIALIZER)
        {
            let parts = wire::fields(original, tensor.payload)?;
            let Some(name) = parts.iter().rev().find(|f| f.number == TENSOR_NAME) else { continue };
            let Ok(name) = std::str::from_utf8(&original[name.payload.clone()]) else { continue };
            let Some(new) = values.get(name) else { continue };
            let refuse =
                |why: &str| OnnxError::Patch { tensor: name.to_owned(), why: why.to_owned() };
            let mut payloads = parts.iter().filter(|f| {
                (f.number == TENSOR_RAW_DATA || f.number == TENSOR_FLOAT_DATA)
                    && !f.payload.is_empty()
            });
            let (Some(payload), None) = (payloads.next(), payloads.next()) else {
                return Err(refuse("its payload is not one run of bytes"));
            };
            if payload.payload.len() != new.len() * 4 {
                return Err(refuse("its payload has another length than the new values"));
            }
            if found.insert(name.to_owned(), payload.payload.clone()).is_some() {
                return Err(refuse("it appears twice in the file"));
            }
        }
    }
    if let Some(missing) = values.keys().find(|name| !found.contains_key(*name)) {
        return Err(OnnxError::Patch {
            tensor: missing.clone(),
            why: "the file has no such initializer".into(),
        });
    }
    Ok(found.into_iter().collect())
}
