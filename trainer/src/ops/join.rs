//! `Concat`.

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{Built, NEWEST_OPSET, NodeView, Operator, axis, no_parameters};
use crate::graph::{Dim, Fact};
use crate::onnx::HostTensor;

pub const TABLE: &[Operator] =
    &[Operator { name: "Concat", opsets: 4..=NEWEST_OPSET, role: no_parameters, build }];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let first = node.input(0)?;
    let along = axis(node.attributes.int("axis", 0)?, first.rank())?;
    if first.is_int() {
        return ints(node);
    }
    let mut dims = first.dims.clone();
    let mut total = 0;
    for place in 0..node.inputs.len() {
        let part = node.float(place)?;
        if part.rank() != dims.len()
            || part.dims.iter().zip(&dims).enumerate().any(|(a, (p, d))| a != along && p != d)
        {
            return Err(format!("shapes {first} and {part} do not join along axis {along}"));
        }
        total += part.fixed(along)?;
    }
    dims[along] = Dim::Fixed(total);
    Built::one(Fact::runtime(dims), move |i, _| Dispatch::float_cat(i.take_all(), along))
}

fn ints(node: &NodeView<'_>) -> Result<Built, String> {
    let mut joined = Vec::new();
    for place in 0..node.inputs.len() {
        if node.input(place)?.rank() != 1 {
            return Err("integers are joined in one dimension only".into());
        }
        joined.extend_from_slice(node.ints(place)?);
    }
    Ok(Built::Constant(Fact::constant(Arc::new(HostTensor::ints(joined)))))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::onnx::write::int;

    #[test]
    fn floats_join_along_an_axis_and_integers_at_load() {
        let case = Case::new(&[1, 2, 2]).inner("Relu", &["x"], "r", vec![]).node(
            "Concat",
            &["x", "r"],
            vec![int("axis", -1)],
        );
        assert_eq!(case.run(&[-1.0, 2.0, 3.0, -4.0]), [-1.0, 2.0, 0.0, 2.0, 3.0, -4.0, 3.0, 0.0]);
        let case = Case::new(&[2, 3])
            .ints("a", &[3])
            .ints("b", &[-1])
            .inner("Concat", &["a", "b"], "s", vec![int("axis", 0)])
            .node("Reshape", &["x", "s"], vec![]);
        assert_eq!(case.output_shape(), [3, 2]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[2, 3])
            .inner("Relu", &["x"], "r", vec![])
            .node("Concat", &["x", "r", "x"], vec![int("axis", 1)])
            .check_gradients();
    }
}
