//! `Constant`: a value kept in the node. One that is used as a weight trains as any other.

use super::{Built, NodeView, Operator, no_parameters};
use crate::onnx::HostTensor;

pub const TABLE: &[Operator] = &[Operator::new("Constant", 1, no_parameters, build)];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let attributes = &node.attributes;
    let tensor = if let Some(tensor) = attributes.tensor("value")? {
        HostTensor::read(tensor).map_err(|e| e.to_string())?
    } else if let Some(values) = attributes.floats("value_floats")? {
        HostTensor::floats(values.to_vec())
    } else if let Some(values) = attributes.ints("value_ints")? {
        HostTensor::ints(values.to_vec())
    } else if let Some(value) = attributes.optional_float("value_float")? {
        HostTensor::floats(vec![value]).scalar()
    } else if let Some(value) = attributes.optional_int("value_int")? {
        HostTensor::ints(vec![value]).scalar()
    } else {
        return Err("it holds text or a sparse tensor, which are not read".into());
    };
    Ok(Built::Constant(tensor))
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
