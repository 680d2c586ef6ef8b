//! `Flatten`, `Reshape`, `Transpose`, `Identity`: the same elements in another order or shape.
//!
//! An initializer that passes through one of these has the role of whoever uses the result.

use super::{Built, NodeView, Operator, axis, tensor};
use crate::graph::{Fact, Role, at_least_one};

pub const TABLE: &[Operator] = &[
    Operator::new("Flatten", 1, through, flatten),
    Operator::new("Reshape", 5, through, reshape),
    Operator::new("Transpose", 1, through, transpose),
    Operator::new("Identity", 1, through, |n| Built::one(n.input(0)?.clone(), |i, _| i.take(0))),
];

/// The first input has the role of whoever uses the result.
pub(super) fn through(place: usize, _: usize) -> Role {
    if place == 0 { Role::Through } else { Role::Constant }
}

/// A step that only changes the shape.
pub(super) fn reshaped(x: &Fact, dims: Vec<usize>) -> Result<Built, String> {
    let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    if count != Some(x.count()) {
        return Err(format!("shape {x} does not become {dims:?}"));
    }
    let shape = at_least_one(&dims);
    Built::one(x.reshaped(dims), move |i, _| tensor::reshape(i.take(0), &shape))
}

fn flatten(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let at = node.attributes.int("axis", 1)?;
    let at = if at == x.rank() as i64 { x.rank() } else { axis(at, x.rank())? };
    let (rows, columns) = x.dims.split_at(at);
    reshaped(x, vec![rows.iter().product(), columns.iter().product()])
}

fn reshape(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let zero_is_zero = node.opset >= 14 && node.attributes.flag("allowzero", false)?;
    let mut dims = Vec::new();
    let mut open = None;
    for (place, size) in node.ints(1)?.iter().enumerate() {
        dims.push(match size {
            -1 if open.is_none() => {
                open = Some(place);
                1
            }
            0 if !zero_is_zero => {
                *x.dims.get(place).ok_or("a zero in the target has no counterpart")?
            }
            n => usize::try_from(*n).map_err(|_| format!("a target size of {n} makes no sense"))?,
        });
    }
    let product = |dims: &[usize]| dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let total = x.count();
    if let Some(place) = open {
        let rest = product(&dims).filter(|rest| *rest > 0 && total.is_multiple_of(*rest));
        dims[place] =
            total / rest.ok_or_else(|| format!("shape {x} does not divide into the target"))?;
    }
    // Exporters bake a batch of one into targets such as [1, 512]; then the leading 1 is the batch.
    if dims.first() == Some(&1)
        && let Some(batch) = x.dims.first()
        && product(&dims).and_then(|n| n.checked_mul(*batch)) == Some(total)
    {
        dims[0] = *batch;
    }
    reshaped(x, dims)
}

fn transpose(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let order: Vec<usize> = match node.attributes.ints("perm")? {
        None => (0..x.rank()).rev().collect(),
        Some(order) => order.iter().map(|a| axis(*a, x.rank())).collect::<Result<_, _>>()?,
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..x.rank()).collect::<Vec<_>>() {
        return Err(format!("perm {order:?} is no order of the axes of {x}"));
    }
    let dims = order.iter().map(|a| x.dims[*a]).collect();
    Built::one(x.reshaped(dims), move |i, _| {
        if order.len() < 2 { i.take(0) } else { tensor::permute(i.take(0), &order) }
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
    use crate::graph::Role;
    use crate::onnx::write::{int, ints};

    #[test]
    fn shapes_follow_the_target() {
        let shape = |target: &[i64]| {
            Case::new(&[2, 3, 4])
                .ints("s", target)
                .node("Reshape", &["x", "s"], vec![])
                .output_shape()
        };
        assert_eq!(shape(&[0, -1]), [2, 12]);
        assert_eq!(shape(&[-1, 6]), [4, 6]);
        assert_eq!(shape(&[0, 4, 3]), [2, 4, 3]);
        assert_eq!(shape(&[1, 12]), [2, 12], "a baked-in batch of one is the batch");
        let flat = |axis: i64| {
            Case::new(&[2, 3, 4]).node("Flatten", &["x"], vec![int("axis", axis)]).output_shape()
        };
        assert_eq!(flat(1), [2, 12]);
        assert_eq!(flat(0), [1, 24]);
        assert_eq!(flat(-1), [6, 4]);
        assert_eq!(flat(3), [24, 1]);
    }

    #[test]
    fn a_target_of_another_size_is_refused() {
        let text =
            Case::new(&[2, 3]).ints("s", &[0, 4]).node("Reshape", &["x", "s"], vec![]).refusal();
        assert!(text.contains("does not become"), "{text}");
    }

    #[test]
    fn transpose_by_hand() {
        let case = Case::new(&[1, 2, 3]).node("Transpose", &["x"], vec![ints("perm", &[0, 2, 1])]);
        assert_eq!(case.run(&sequence(6)), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn a_weight_keeps_its_role_through_a_transpose() {
        let case = Case::new(&[2, 3])
            .random("w", &[4, 3])
            .inner("Transpose", &["w"], "t", vec![])
            .inner("Identity", &["t"], "i", vec![])
            .node("MatMul", &["x", "i"], vec![]);
        assert_eq!(case.roles(), [Role::Weight]);
        case.check_gradients();
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[2, 3, 2])
            .node("Transpose", &["x"], vec![ints("perm", &[2, 0, 1])])
            .check_gradients();
        Case::new(&[2, 3, 2]).node("Flatten", &["x"], vec![]).check_gradients();
    }
}
