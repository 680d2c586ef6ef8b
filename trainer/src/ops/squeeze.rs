//! `Squeeze`, `Unsqueeze`: axes of size one taken out or put in.
//!
//! Their axes are an attribute up to operator set 12 and an input after it.

use super::shape::{reshaped, through};
use super::{Built, NodeView, Operator, axes};

pub const TABLE: &[Operator] = &[
    Operator::new("Squeeze", 1, through, squeeze),
    Operator::new("Unsqueeze", 1, through, unsqueeze),
];

const LAST_ATTRIBUTE: i64 = 12;

/// Without axes every axis of size one goes.
fn squeeze(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let gone = match node.axes(1, LAST_ATTRIBUTE)? {
        Some(list) => axes(list, x.rank())?,
        None => (0..x.rank()).filter(|a| x.dims[*a] == 1).collect(),
    };
    if let Some(a) = gone.iter().find(|a| x.dims[**a] != 1) {
        return Err(format!("axis {a} of {x} is not of size one"));
    }
    let kept = x.dims.iter().enumerate().filter(|(a, _)| !gone.contains(a));
    reshaped(x, kept.map(|(_, d)| *d).collect())
}

/// The axes count in the result.
fn unsqueeze(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let list = node.axes(1, LAST_ATTRIBUTE)?.ok_or("it does not say which axes")?;
    let new = axes(list, x.rank() + list.len())?;
    let mut dims = x.dims.clone();
    for axis in new {
        dims.insert(axis, 1);
    }
    reshaped(x, dims)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::graph::Role;
    use crate::onnx::write::ints;

    fn shape(op: &str, from: &[usize], axes: &[i64]) -> Vec<usize> {
        let new = Case::new(from).ints("a", axes).node(op, &["x", "a"], vec![]).output_shape();
        let old = Case::new(from).opset(11).node(op, &["x"], vec![ints("axes", axes)]);
        assert_eq!(old.output_shape(), new);
        new
    }

    #[test]
    fn axes_of_size_one_come_and_go() {
        assert_eq!(shape("Squeeze", &[2, 1, 3, 1], &[-1]), [2, 1, 3]);
        assert_eq!(shape("Squeeze", &[2, 1, 3, 1], &[3, 1]), [2, 3]);
        assert_eq!(shape("Unsqueeze", &[2, 3], &[-1, 1]), [2, 1, 3, 1]);
        let all = Case::new(&[1, 3, 1]).node("Squeeze", &["x"], vec![]);
        assert_eq!(all.output_shape(), [3]);
        let scalar = Case::new(&[1, 1]).node("Squeeze", &["x"], vec![]);
        assert_eq!(scalar.output_shape(), [0usize; 0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refusal = |op: &str, axes: &[i64]| {
            Case::new(&[2, 1]).ints("a", axes).node(op, &["x", "a"], vec![]).refusal()
        };
        assert!(refusal("Squeeze", &[0]).contains("not of size one"));
        assert!(refusal("Unsqueeze", &[1, 1]).contains("name one twice"));
        assert!(refusal("Unsqueeze", &[3]).contains("does not exist"));
        assert!(Case::new(&[2]).node("Unsqueeze", &["x"], vec![]).refusal().contains("which axes"));
    }

    #[test]
    fn a_weight_keeps_its_role_and_gradients_pass() {
        let case = Case::new(&[2, 3])
            .random("w", &[3, 4])
            .ints("a", &[0])
            .inner("Unsqueeze", &["w", "a"], "u", vec![])
            .inner("Squeeze", &["u", "a"], "s", vec![])
            .node("MatMul", &["x", "s"], vec![]);
        assert_eq!(case.roles(), [Role::Weight]);
        case.check_gradients();
    }
}
