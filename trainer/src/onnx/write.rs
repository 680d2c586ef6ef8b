//! Builds small ONNX graphs: for `trainer new` and for tests.
//!
//! Weights are written as `raw_data`, so that the file can be patched later. Operator set 17 and
//! IR version 8 are written: every ONNX Runtime since 1.12 reads them.

use onnx_ir::{
    AttributeProto, AttributeType, Message, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

use super::OnnxError;

/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;
/// `TensorProto.DataType.INT8`.
const INT8: i32 = 3;
/// `TensorProto.DataType.INT64`.
const INT64: i32 = 7;

/// The operator set that is written.
pub const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// A graph under construction. Nodes are written in the order in which they are added, which has to
/// be an order in which they can run.
#[derive(Debug)]
pub struct GraphWriter {
    model: ModelProto,
}

impl GraphWriter {
    /// An empty graph of that name.
    pub fn new(name: &str) -> Self {
        let mut model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "fleetloop trainer".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        model.opset_import.push(Default::default());
        model.opset_import[0].version = OPSET;
        model.graph.mut_or_insert_default().name = name.into();
        Self { model }
    }

    /// Writes another operator set version than [`OPSET`].
    #[must_use]
    pub fn opset(mut self, version: i64) -> Self {
        self.model.opset_import[0].version = version;
        self
    }

    /// A float input; `None` is the batch dimension.
    #[must_use]
    pub fn input(mut self, name: &str, dims: &[Option<usize>]) -> Self {
        self.graph().input.push(value(name, dims));
        self
    }

    /// A float output; `None` is the batch dimension.
    #[must_use]
    pub fn output(mut self, name: &str, dims: &[Option<usize>]) -> Self {
        self.graph().output.push(value(name, dims));
        self
    }

    /// A float initializer.
    #[must_use]
    pub fn floats(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let mut tensor = tensor(name, shape, FLOAT);
        tensor.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into();
        self.graph().initializer.push(tensor);
        self
    }

    /// A one-dimensional integer initializer.
    #[must_use]
    pub fn ints(mut self, name: &str, values: &[i64]) -> Self {
        let mut tensor = tensor(name, &[values.len()], INT64);
        tensor.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into();
        self.graph().initializer.push(tensor);
        self
    }

    /// An initializer of 8-bit integers.
    #[must_use]
    pub fn levels(mut self, name: &str, shape: &[usize], values: &[i8]) -> Self {
        let mut tensor = tensor(name, shape, INT8);
        tensor.raw_data = values.iter().map(|v| *v as u8).collect::<Vec<u8>>().into();
        self.graph().initializer.push(tensor);
        self
    }

    /// A node; an empty input name leaves that input out.
    #[must_use]
    pub fn node(
        mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Self {
        let node = NodeProto {
            name: format!("{}_{}", op.to_lowercase(), self.model.graph.node.len()),
            op_type: op.into(),
            input: inputs.iter().map(|s| (*s).to_owned()).collect(),
            output: outputs.iter().map(|s| (*s).to_owned()).collect(),
            attribute: attributes,
            ..Default::default()
        };
        self.graph().node.push(node);
        self
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// [`OnnxError::Incomplete`] when the message cannot be serialised.
    pub fn finish(self) -> Result<Vec<u8>, OnnxError> {
        self.model
            .write_to_bytes()
            .map_err(|e| OnnxError::Incomplete(format!("it cannot be serialised: {e}")))
    }

    fn graph(&mut self) -> &mut onnx_ir::GraphProto {
        self.model.graph.mut_or_insert_default()
    }
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: value, ..attribute(name, AttributeType::INT) }
}

/// A list of integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::INTS) }
}

/// A float attribute.
pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: value, ..attribute(name, AttributeType::FLOAT) }
}

/// A text attribute.
#[cfg(test)]
pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: value.as_bytes().to_vec().into(), ..attribute(name, AttributeType::STRING) }
}

/// A list of texts.
#[cfg(test)]
pub fn texts(name: &str, values: &[&str]) -> AttributeProto {
    let strings = values.iter().map(|v| v.as_bytes().to_vec().into()).collect();
    AttributeProto { strings, ..attribute(name, AttributeType::STRINGS) }
}

/// A list of floats.
#[cfg(test)]
pub fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto { floats: values.to_vec(), ..attribute(name, AttributeType::FLOATS) }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), type_: kind.into(), ..Default::default() }
}

fn tensor(name: &str, shape: &[usize], data_type: i32) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type,
        dims: shape.iter().map(|d| *d as i64).collect(),
        ..Default::default()
    }
}

fn value(name: &str, dims: &[Option<usize>]) -> ValueInfoProto {
    let mut info = ValueInfoProto { name: name.into(), ..Default::default() };
    let tensor = info.type_.mut_or_insert_default().mut_tensor_type();
    tensor.elem_type = FLOAT;
    let shape = tensor.shape.mut_or_insert_default();
    for dim in dims {
        shape.dim.push(Default::default());
        if let Some(last) = shape.dim.last_mut() {
            match dim {
                Some(size) => last.set_dim_value(*size as i64),
                None => last.set_dim_param("N".into()),
            }
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::{Model, patch};
    use super::*;

    fn file() -> Vec<u8> {
        GraphWriter::new("t")
            .input("x", &[None, Some(2)])
            .output("y", &[None, Some(2)])
            .floats("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
            .floats("b", &[2], &[5.0, 6.0])
            .node("Gemm", &["x", "w", "b"], &["y"], vec![int("transB", 1)])
            .finish()
            .unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let model = Model::parse(file()).unwrap();
        assert_eq!(model.opset, OPSET);
        assert_eq!(model.inputs.len(), 1);
        assert_eq!(model.initializers["b"].shape, [2]);
    }

    #[test]
    fn a_patch_changes_its_payload_and_no_other_byte() {
        let original = file();
        let patched =
            patch(&original, &HashMap::from([("b".to_owned(), vec![-1.0, 0.5])])).unwrap();
        assert_eq!(patched.patches.len(), 1);
        let place = &patched.patches[0];
        let range = place.offset_bytes as usize..(place.offset_bytes + place.length_bytes) as usize;
        assert_eq!(range.len(), 8);
        for (at, (old, new)) in original.iter().zip(&patched.bytes).enumerate() {
            assert!(old == new || range.contains(&at), "byte {at} changed");
        }
        let model = Model::parse(patched.bytes).unwrap();
        assert_eq!(
            model.initializers["b"].elements,
            super::super::Elements::Float(vec![-1.0, 0.5])
        );
        assert_eq!(model.initializers["w"], Model::parse(original).unwrap().initializers["w"]);
    }

    #[test]
    fn weights_in_constant_nodes_and_of_sixteen_bits_are_patched_too() {
        let mut value = tensor("", &[2], 10);
        value.raw_data = vec![0u8; 4].into();
        let mut held = attribute("value", AttributeType::TENSOR);
        held.t = Some(value).into();
        let original = GraphWriter::new("t")
            .input("x", &[None, Some(2)])
            .output("y", &[None, Some(2)])
            .node("Constant", &[], &["w"], vec![held])
            .node("Add", &["x", "w"], &["y"], vec![])
            .finish()
            .unwrap();
        let values = HashMap::from([("w".to_owned(), vec![1.5, -2.0])]);
        let patched = patch(&original, &values).unwrap();
        assert_eq!(patched.patches[0].length_bytes, 4);
        let model = Model::parse(patched.bytes).unwrap();
        let weight = model.weights().next().unwrap();
        assert_eq!(weight.name, "w");
        assert_eq!(weight.tensor.elements, super::super::Elements::Float(vec![1.5, -2.0]));
    }

    #[test]
    fn a_patch_of_another_length_or_name_is_refused() {
        for values in [("b", vec![0.0; 3]), ("nobody", vec![0.0; 2])] {
            assert!(patch(&file(), &HashMap::from([(values.0.to_owned(), values.1)])).is_err());
        }
    }

    #[test]
    fn a_truncated_file_is_an_error_at_every_length() {
        let whole = file();
        for cut in 0..whole.len() {
            // A cut between two top-level fields is a valid protobuf message; it lacks the graph or its parts.
            let _ =
                Model::parse(whole[..cut].to_vec()).map(|m| assert!(m.bytes.len() < whole.len()));
            let values =
                HashMap::from([("w".to_owned(), vec![0.0; 4]), ("b".to_owned(), vec![0.0; 2])]);
            assert!(patch(&whole[..cut], &values).is_err(), "cut at {cut}");
        }
    }
}
