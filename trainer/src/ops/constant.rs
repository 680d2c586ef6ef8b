//! `Constant`: a value kept in the node. It is never trained.

use std::sync::Arc;

use super::{Built, NEWEST_OPSET, NodeView, Operator, no_parameters};
use crate::graph::Fact;
use crate::onnx::{Elements, HostTensor};

pub const TABLE: &[Operator] =
    &[Operator { name: "Constant", opsets: 1..=NEWEST_OPSET, role: no_parameters, build }];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let attributes = &node.attributes;
    let tensor = if let Some(tensor) = attributes.tensor("value")? {
        HostTensor::read(tensor).map_err(|e| e.to_string())?
    } else if let Some(values) = attributes.floats("value_floats")? {
        HostTensor { shape: vec![values.len()], elements: Elements::Float(values.to_vec()) }
    } else if let Some(values) = attributes.ints("value_ints")? {
        HostTensor::ints(values.to_vec())
    } else {
        return Err(
            "it holds no value that is read (value, value_floats and value_ints are)".into()
        );
    };
    Ok(Built::Constant(Fact::constant(Arc::new(tensor))))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::onnx::write::ints;

    #[test]
    fn a_constant_shape_is_known_at_load() {
        let case = Case::new(&[2, 3])
            .inner("Constant", &[], "s", vec![ints("value_ints", &[3, -1])])
            .node("Reshape", &["x", "s"], vec![]);
        assert_eq!(case.output_shape(), [3, 2]);
    }
}
