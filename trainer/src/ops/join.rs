//! `Concat`.

use super::{Built, NodeView, Operator, axis, tensor};
use crate::graph::Role;

pub const TABLE: &[Operator] = &[Operator::new("Concat", 4, |_, _| Role::Through, build)];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let first = node.input(0)?;
    let along = axis(node.attributes.int("axis", 0)?, first.rank())?;
    let mut dims = first.dims.clone();
    dims[along] = 0;
    for place in 0..node.inputs.len() {
        let part = node.of_kind(place, first.kind())?;
        let fits = |a: usize| a == along || part.dims[a] == first.dims[a];
        if part.rank() != dims.len() || !(0..dims.len()).all(fits) {
            return Err(format!("shapes {first} and {part} do not join along axis {along}"));
        }
        dims[along] += part.dims[along];
    }
    Built::one(first.reshaped(dims), move |i, _| tensor::concat(i.take_all(), along))
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
