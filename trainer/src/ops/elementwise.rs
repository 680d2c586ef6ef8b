//! `Add`, `Sub`, `Mul`, `Div` with numpy's broadcasting.
//!
//! An initializer that is added trains as a bias and one that multiplies as a scale, unless it is a
//! single number (the constants of a written-out activation); subtracted and dividing ones are
//! taken for fixed normalisation and do not train.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{Built, NEWEST_OPSET, NodeView, Operator, no_parameters, tensor};
use crate::graph::{Dim, Fact, Role, Tensor};

pub const TABLE: &[Operator] = &[
    Operator {
        name: "Add",
        opsets: 7..=NEWEST_OPSET,
        role: |_, n| if n > 1 { Role::Bias } else { Role::Constant },
        build: |n| build(n, Dispatch::float_add),
    },
    Operator {
        name: "Sub",
        opsets: 7..=NEWEST_OPSET,
        role: no_parameters,
        build: |n| build(n, Dispatch::float_sub),
    },
    Operator {
        name: "Mul",
        opsets: 7..=NEWEST_OPSET,
        role: |_, n| if n > 1 { Role::Scale } else { Role::Constant },
        build: |n| build(n, Dispatch::float_mul),
    },
    Operator {
        name: "Div",
        opsets: 7..=NEWEST_OPSET,
        role: no_parameters,
        build: |n| build(n, Dispatch::float_div),
    },
];

fn build(node: &NodeView<'_>, operation: fn(Tensor, Tensor) -> Tensor) -> Result<Built, String> {
    let (a, b) = (node.float(0)?, node.float(1)?);
    let dims = broadcast(&a.dims, &b.dims)
        .ok_or_else(|| format!("shapes {a} and {b} do not broadcast"))?;
    Built::one(Fact::runtime(dims), move |i, _| {
        let (a, b) = tensor::same_rank(i.take(0), i.take(1));
        operation(a, b)
    })
}

/// The shape two shapes broadcast to.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], place: usize| {
        (place + dims.len()).checked_sub(rank).map_or(Dim::Fixed(1), |p| dims[p])
    };
    (0..rank).map(|p| at(a, p).broadcast(at(b, p))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};

    #[test]
    fn broadcasting_by_hand() {
        let run = |op: &str| {
            Case::new(&[2, 2])
                .floats("w", &[2], &[2.0, 4.0])
                .node(op, &["x", "w"], vec![])
                .run(&sequence(4))
        };
        assert_eq!(run("Add"), [3.0, 6.0, 5.0, 8.0]);
        assert_eq!(run("Sub"), [-1.0, -2.0, 1.0, 0.0]);
        assert_eq!(run("Mul"), [2.0, 8.0, 6.0, 16.0]);
        assert_eq!(run("Div"), [0.5, 0.5, 1.5, 1.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in ["Add", "Sub", "Mul", "Div"] {
            Case::new(&[2, 3, 2])
                .random("w", &[3, 1])
                .node(op, &["x", "w"], vec![])
                .check_gradients();
        }
    }

    #[test]
    fn a_single_number_does_not_train_and_a_vector_does() {
        use crate::graph::Role;
        let role = |op: &str, shape: &[usize]| {
            Case::new(&[2, 3]).random("w", shape).node(op, &["x", "w"], vec![]).roles()
        };
        assert_eq!(role("Add", &[3]), [Role::Bias]);
        assert_eq!(role("Mul", &[3]), [Role::Scale]);
        assert_eq!(role("Add", &[1]), []);
        assert_eq!(role("Sub", &[3]), []);
        assert_eq!(role("Div", &[3]), []);
    }
}
