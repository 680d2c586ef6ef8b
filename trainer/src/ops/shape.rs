//! `Flatten`, `Reshape`, `Transpose`, `Identity`: the same elements in another order or shape.
//!
//! An initializer that passes through one of these has the role of whoever uses the result.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{Built, NEWEST_OPSET, NodeView, Operator, axis, tensor};
use crate::graph::{Dim, Fact, Role};

pub const TABLE: &[Operator] = &[
    Operator { name: "Flatten", opsets: 1..=NEWEST_OPSET, role: through, build: flatten },
    Operator { name: "Reshape", opsets: 5..=NEWEST_OPSET, role: through, build: reshape },
    Operator { name: "Transpose", opsets: 1..=NEWEST_OPSET, role: through, build: transpose },
    Operator { name: "Identity", opsets: 1..=NEWEST_OPSET, role: through, build: identity },
];

fn through(place: usize, _: usize) -> Role {
    if place == 0 { Role::Through } else { Role::Constant }
}

/// A step that only changes the shape: `dims` are filled in with the batch when it runs.
fn reshaped(x: &Fact, dims: Vec<Dim>) -> Result<Built, String> {
    let total = |dims: &[Dim]| Dim::product(dims);
    if total(&dims).is_none() || total(&dims) != total(&x.dims) {
        return Err(format!("shape {x} does not become {}", Fact::runtime(dims)));
    }
    let batched = x
        .dims
        .iter()
        .enumerate()
        .find_map(|(a, d)| if let Dim::Batch(n) = d { Some((a, *n)) } else { None });
    let target = dims.clone();
    Built::one(Fact::runtime(dims), move |i, _| {
        let x = i.take(0);
        let batch = batched.map_or(1, |(axis, per_batch)| tensor::dims(&x)[axis] / per_batch);
        let shape: Vec<usize> = target.iter().map(|d| d.at(batch)).collect();
        tensor::reshape(x, &shape)
    })
}

fn flatten(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let at = node.attributes.int("axis", 1)?;
    let at = if at == x.rank() as i64 { x.rank() } else { axis(at, x.rank())? };
    let product =
        |dims: &[Dim]| Dim::product(dims).ok_or_else(|| format!("shape {x} cannot be flattened"));
    reshaped(x, vec![product(&x.dims[..at])?, product(&x.dims[at..])?])
}

fn reshape(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let zero_is_zero = node.opset >= 14 && node.attributes.flag("allowzero", false)?;
    let mut dims = Vec::new();
    let mut open = None;
    for (place, size) in node.ints(1)?.iter().enumerate() {
        dims.push(match size {
            -1 if open.is_none() => {
                open = Some(place);
                Dim::Fixed(1)
            }
            0 if !zero_is_zero => {
                *x.dims.get(place).ok_or("a zero in the target has no counterpart")?
            }
            n => Dim::Fixed(
                usize::try_from(*n).map_err(|_| format!("a target size of {n} makes no sense"))?,
            ),
        });
    }
    let total = Dim::product(&x.dims).ok_or_else(|| format!("shape {x} cannot be reshaped"))?;
    if let Some(place) = open {
        dims[place] = Dim::product(&dims)
            .and_then(|rest| total.over(rest))
            .ok_or_else(|| format!("shape {x} does not divide into the target"))?;
    }
    keep_batch(x, &mut dims, total);
    reshaped(x, dims)
}

/// Exporters bake a batch of one into targets such as `[1, 512]`; then the leading 1 is the batch.
fn keep_batch(x: &Fact, dims: &mut [Dim], total: Dim) {
    if dims.first() == Some(&Dim::Fixed(1))
        && x.dims.first() == Some(&Dim::Batch(1))
        && Dim::product(dims).and_then(Dim::fixed) == Some(total.at(1))
    {
        dims[0] = Dim::Batch(1);
    }
}

fn transpose(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    if x.rank() == 0 {
        return Err("a single number has no axes to put in order".into());
    }
    let order: Vec<usize> = match node.attributes.ints("perm")? {
        None => (0..x.rank()).rev().collect(),
        Some(order) => order.iter().map(|a| axis(*a, x.rank())).collect::<Result<_, _>>()?,
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..x.rank()).collect::<Vec<_>>() {
        return Err(format!("perm {order:?} is no order of the axes of {x}"));
    }
    Built::one(Fact::runtime(order.iter().map(|a| x.dims[*a]).collect()), move |i, _| {
        Dispatch::float_permute(i.take(0), &order)
    })
}

fn identity(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    if x.constant.is_some() {
        return Ok(Built::Constant(x.clone()));
    }
    Built::one(x.clone(), |i, _| i.take(0))
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
