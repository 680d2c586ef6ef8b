//! Makes of a file what every reader behind the door takes, where that changes nothing of what it
//! computes, or its last digits at most.
//!
//! | found | becomes |
//! |---|---|
//! | calls of the file's own functions | the functions' nodes |
//! | an `If` on a constant | the nodes of its branch |
//! | operator set 5 or 6, of operators that are the same in 7 | operator set 7 |
//! | values of 64-bit floats | values of 32-bit floats: ONNX Runtime lacks many operators for the former |
//! | weights of up to 32 bits kept as varints (`int32_data`) | `raw_data`, which new values are patched into |
//! | nodes of one name | nodes of a name each |
//!
//! A file that needs none of this keeps every byte. What cannot be done is refused by name.

use std::collections::HashSet;

use onnx_ir::{GraphProto, Message, ModelProto, TensorProto};

use super::{OnnxError, inline};

/// The oldest operator set that is converted, and what it becomes.
const SETS: (i64, i64) = (5, 7);
/// Operators that mean in operator set 5 and 6 what they mean in 7, once their attribute
/// `consumed_inputs`, `is_test` or `broadcast` is gone.
const SAME: [&str; 50] = [
    "Abs",
    "Add",
    "ArgMax",
    "ArgMin",
    "AveragePool",
    "BatchNormalization",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "Div",
    "Dropout",
    "Elu",
    "Exp",
    "Flatten",
    "Floor",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "Identity",
    "InstanceNormalization",
    "LRN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "MatMul",
    "MaxPool",
    "Mul",
    "Neg",
    "Pad",
    "Pow",
    "Reciprocal",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Selu",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
];

/// The file made plain; none when it is so already, or is no model.
///
/// # Errors
/// [`OnnxError::Incomplete`] names what cannot be made so.
pub fn plain(bytes: &[u8]) -> Result<Option<Vec<u8>>, OnnxError> {
    let Ok(mut model) = ModelProto::parse_from_bytes(bytes) else { return Ok(None) };
    let mut changed = inline::functions(&mut model)?;
    changed |= inline::constant_choices(&mut model)?;
    changed |= old_set(&mut model)?;
    if let Some(graph) = model.graph.as_mut() {
        changed |= doubles(graph);
        changed |= typed_weights(graph);
        changed |= same_names(graph);
    }
    if !changed {
        return Ok(None);
    }
    let written = model.write_to_bytes();
    written.map(Some).map_err(|e| refuse(format!("it cannot be serialised: {e}")))
}

pub(super) fn refuse(why: String) -> OnnxError {
    OnnxError::Incomplete(why)
}

/// The version of ONNX's own operator set.
pub(super) fn own_set(model: &ModelProto) -> Option<i64> {
    let mut imports = model.opset_import.iter();
    imports.find(|o| matches!(o.domain.as_str(), "" | "ai.onnx")).map(|o| o.version)
}

/// Brings an operator set that ONNX Runtime does not run to one that it does.
fn old_set(model: &mut ModelProto) -> Result<bool, OnnxError> {
    let Some(set) = own_set(model).filter(|set| (SETS.0..SETS.1).contains(set)) else {
        return Ok(false);
    };
    let Some(graph) = model.graph.as_mut() else { return Ok(false) };
    for node in &mut graph.node {
        let called = if node.name.is_empty() { node.output.join(", ") } else { node.name.clone() };
        let what = format!("{} '{called}' of operator set {set}", node.op_type);
        if !SAME.contains(&node.op_type.as_str()) {
            return Err(refuse(format!(
                "{what} cannot be brought to operator set 7, the oldest that ONNX Runtime runs; convert \
                 it with onnx.version_converter"
            )));
        }
        let int = |name: &str| node.attribute.iter().find(|a| a.name == name).map(|a| a.i);
        // Dropout never drops in use; a normalisation would.
        if node.op_type == "BatchNormalization" && int("is_test").unwrap_or_default() == 0 {
            return Err(refuse(format!("{what} works as in training (is_test = 0)")));
        }
        if int("axis").is_some() && int("broadcast").is_some() {
            return Err(refuse(format!(
                "{what} broadcasts along an axis, which operator set 7 does not"
            )));
        }
        node.attribute
            .retain(|a| !["consumed_inputs", "is_test", "broadcast"].contains(&a.name.as_str()));
    }
    for import in &mut model.opset_import {
        if matches!(import.domain.as_str(), "" | "ai.onnx") {
            import.version = SETS.1;
        }
    }
    Ok(true)
}

/// ONNX's numbers of the types of floats.
const FLOAT: i32 = 1;
const DOUBLE: i32 = 11;

/// Makes floats of 32 bits of those of 64, in a graph and those inside.
fn doubles(graph: &mut GraphProto) -> bool {
    let mut changed = false;
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    for value in values {
        let Some(kind) = value.type_.as_mut().filter(|kind| kind.has_tensor_type()) else {
            continue;
        };
        if kind.tensor_type().elem_type == DOUBLE {
            kind.mut_tensor_type().elem_type = FLOAT;
            changed = true;
        }
    }
    for tensor in &mut graph.initializer {
        changed |= single(tensor);
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        if matches!(attribute.name.as_str(), "to" | "dtype") && attribute.i == i64::from(DOUBLE) {
            attribute.i = FLOAT.into();
            changed = true;
        }
        changed |= attribute.t.as_mut().is_some_and(single);
        changed |= attribute.g.as_mut().is_some_and(doubles);
        for inner in &mut attribute.graphs {
            changed |= doubles(inner);
        }
    }
    changed
}

/// Makes floats of 32 bits of a tensor of 64-bit ones.
fn single(tensor: &mut TensorProto) -> bool {
    if tensor.data_type != DOUBLE {
        return false;
    }
    let typed = std::mem::take(&mut tensor.double_data);
    let raw = tensor.raw_data.as_chunks::<8>().0.iter().map(|word| f64::from_le_bytes(*word));
    let floats = typed.into_iter().chain(raw).flat_map(|value| (value as f32).to_le_bytes());
    let floats: Vec<u8> = floats.collect();
    tensor.raw_data = floats.into();
    tensor.data_type = FLOAT;
    true
}

/// Writes weights that are kept as varints as raw data.
fn typed_weights(graph: &mut GraphProto) -> bool {
    let mut changed = false;
    let held = graph.node.iter_mut().filter(|node| node.op_type == "Constant");
    let held = held.flat_map(|node| &mut node.attribute).filter_map(|a| a.t.as_mut());
    for tensor in graph.initializer.iter_mut().chain(held) {
        let width = match tensor.data_type {
            2 | 3 => 1,
            4 | 5 | 10 | 16 => 2,
            6 => 4,
            _ => continue,
        };
        if tensor.int32_data.is_empty() || !tensor.raw_data.is_empty() {
            continue;
        }
        let values = std::mem::take(&mut tensor.int32_data);
        let bytes: Vec<u8> =
            values.iter().flat_map(|v| v.to_le_bytes().into_iter().take(width)).collect();
        tensor.raw_data = bytes.into();
        changed = true;
    }
    changed
}

/// Gives each node a name of its own where two have the same.
fn same_names(graph: &mut GraphProto) -> bool {
    let mut taken: HashSet<String> = HashSet::new();
    let all: HashSet<String> = graph.node.iter().map(|node| node.name.clone()).collect();
    let mut changed = false;
    for node in graph.node.iter_mut().filter(|node| !node.name.is_empty()) {
        if taken.insert(node.name.clone()) {
            continue;
        }
        let free = (2..).map(|n| format!("{}_{n}", node.name));
        let mut free = free.filter(|name| !all.contains(name) && !taken.contains(name));
        node.name = free.next().unwrap_or_default();
        taken.insert(node.name.clone());
        changed = true;
    }
    changed
}
