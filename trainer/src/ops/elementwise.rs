//! `Add`, `Sub`, `Mul`, `Div`, with numpy's broadcasting, over floats and integers.
//!
//! A weight that is added trains as a bias and one that multiplies as a scale, unless it is a
//! single number (the constants of a written-out activation); subtracted and dividing ones are
//! taken for fixed normalisation and do not train. Integers divide towards zero and stay within
//! the width of their type.

use burn::backend::Dispatch;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};

use super::{Built, NodeView, Operator, broadcast, integer, no_parameters, tensor};
use crate::graph::{Fact, Role, Tensor};
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[
    Operator::new("Add", 7, bias, |n| build(n, Dispatch::float_add, Dispatch::int_add)),
    Operator::new("Sub", 7, no_parameters, |n| build(n, Dispatch::float_sub, Dispatch::int_sub)),
    Operator::new("Mul", 7, scale, |n| build(n, Dispatch::float_mul, Dispatch::int_mul)),
    Operator::new("Div", 7, no_parameters, |n| build(n, Dispatch::float_div, integer::divide)),
];

fn bias(_: usize, elements: usize) -> Role {
    if elements > 1 { Role::Bias } else { Role::Constant }
}

fn scale(_: usize, elements: usize) -> Role {
    if elements > 1 { Role::Scale } else { Role::Constant }
}

type Operation = fn(Tensor, Tensor) -> Tensor;

fn build(node: &NodeView<'_>, floats: Operation, ints: Operation) -> Result<Built, String> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let element = a.element;
    let operation = match (a.kind(), b.kind()) {
        (Kind::Float, Kind::Float) => floats,
        (Kind::Int, Kind::Int) => ints,
        _ => return Err(format!("{:?} and {:?} do not go together", a.element, b.element)),
    };
    Built::one(Fact::runtime(element, broadcast(a, b)?), move |i, _| {
        let (a, b) = tensor::same_rank(i.take(0), i.take(1));
        integer::wrapped(operation(a, b), element)
    })
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
