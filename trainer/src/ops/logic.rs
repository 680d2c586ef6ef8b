//! `And`, `Or`, `Xor`, `Not`, the same over the bits of integers, and `BitShift`.

use burn::backend::ops::{BoolTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::BoolDType;

use super::{Built, NodeView, Operator, broadcast, integer, no_parameters, tensor};
use crate::graph::{Tensor, at_least_one};
use crate::onnx::{Element, Kind};

pub const TABLE: &[Operator] = &[
    Operator::new("And", 7, no_parameters, |n| two(n, Kind::Bool, Dispatch::bool_and)),
    Operator::new("Or", 7, no_parameters, |n| two(n, Kind::Bool, Dispatch::bool_or)),
    Operator::new("Xor", 7, no_parameters, |n| two(n, Kind::Bool, Dispatch::bool_xor)),
    Operator::new("Not", 1, no_parameters, |n| one(n, Kind::Bool, Dispatch::bool_not)),
    Operator::new("BitwiseAnd", 18, no_parameters, |n| two(n, Kind::Int, Dispatch::bitwise_and)),
    Operator::new("BitwiseOr", 18, no_parameters, |n| two(n, Kind::Int, Dispatch::bitwise_or)),
    Operator::new("BitwiseXor", 18, no_parameters, |n| two(n, Kind::Int, Dispatch::bitwise_xor)),
    Operator::new("BitwiseNot", 18, no_parameters, |n| one(n, Kind::Int, Dispatch::bitwise_not)),
    Operator::new("BitShift", 11, no_parameters, shift),
];

fn one(node: &NodeView<'_>, kind: Kind, operation: fn(Tensor) -> Tensor) -> Result<Built, String> {
    let x = node.of_kind(0, kind)?;
    let element = x.element;
    Built::one(x.reshaped(x.dims.clone()), move |i, _| {
        integer::wrapped(operation(i.take(0)), element)
    })
}

fn two(
    node: &NodeView<'_>,
    kind: Kind,
    operation: fn(Tensor, Tensor) -> Tensor,
) -> Result<Built, String> {
    let (a, b) = (node.of_kind(0, kind)?, node.of_kind(1, kind)?);
    let (element, dims) = (a.element, broadcast(a, b)?);
    let shape = at_least_one(&dims);
    Built::one(a.reshaped(dims), move |i, _| {
        let mut next = |place| tensor::expand(tensor::widen(i.take(place), shape.len()), &shape);
        let (a, b) = (next(0), next(1));
        integer::wrapped(operation(a, b), element)
    })
}

/// A shift by the width or more moves every bit out, and so does one by less than nothing.
fn shift(node: &NodeView<'_>) -> Result<Built, String> {
    let element = node.input(0)?.element;
    match node.attributes.text("direction", "")? {
        "LEFT" => two(node, Kind::Int, |a, b| {
            let (by, out) = bits(b);
            Dispatch::int_mask_fill(Dispatch::bitwise_left_shift(a, by), out, Scalar::Int(0))
        }),
        "RIGHT" if element == Element::U64 => {
            Err("64-bit unsigned integers are computed as signed ones, which shift otherwise"
                .into())
        }
        "RIGHT" => two(node, Kind::Int, |a, b| Dispatch::bitwise_right_shift(a, bits(b).0)),
        other => Err(format!("direction '{other}' is neither LEFT nor RIGHT")),
    }
}

/// By how many bits to shift, at most 63, and where that is out of range.
fn bits(by: Tensor) -> (Tensor, Tensor) {
    let near = Dispatch::int_clamp(by.clone(), Scalar::Int(0), Scalar::Int(63));
    let out = Dispatch::int_not_equal(near.clone(), by, BoolDType::Native);
    (Dispatch::int_mask_fill(near, out.clone(), Scalar::Int(63)), out)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::onnx::write::{int, text};

    #[test]
    fn truth_tables() {
        let run = |op: &str| {
            Case::new(&[4])
                .ints("w", &[0, 0, 1, 1])
                .inner("Cast", &["x"], "a", vec![int("to", 9)])
                .inner("Cast", &["w"], "b", vec![int("to", 9)])
                .node(op, if op == "Not" { &["a"] } else { &["a", "b"] }, vec![])
                .run(&[0.0, 1.0, 0.0, 1.0])
        };
        assert_eq!(run("And"), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(run("Or"), [0.0, 1.0, 1.0, 1.0]);
        assert_eq!(run("Xor"), [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(run("Not"), [1.0, 0.0, 1.0, 0.0]);
        let refused = Case::new(&[4]).node("Not", &["x"], vec![]).refusal();
        assert!(refused.contains("Bool is needed"), "{refused}");
    }

    fn bits(op: &str, element: i64, by: &[i64], attributes: Vec<onnx_ir::AttributeProto>) -> Case {
        let case = Case::new(&[2])
            .opset(18)
            .ints("b", by)
            .inner("Cast", &["x"], "i", vec![int("to", element)])
            .inner("Cast", &["b"], "j", vec![int("to", element)]);
        case.node(op, if op == "BitwiseNot" { &["i"] } else { &["i", "j"] }, attributes)
    }

    #[test]
    fn bits_stay_within_their_width() {
        const UINT8: i64 = 2;
        let x = [5.0, 200.0];
        assert_eq!(bits("BitwiseAnd", UINT8, &[4], vec![]).run(&x), [4.0, 0.0]);
        assert_eq!(bits("BitwiseNot", UINT8, &[0], vec![]).run(&x), [250.0, 55.0]);
        let shift = |way: &str, element, by: &[i64]| {
            bits("BitShift", element, by, vec![text("direction", way)])
        };
        assert_eq!(shift("LEFT", UINT8, &[1, 8]).run(&x), [10.0, 0.0]);
        assert_eq!(shift("RIGHT", UINT8, &[1, 70]).run(&x), [2.0, 0.0]);
        assert_eq!(shift("LEFT", 7, &[1, 64]).run(&x), [10.0, 0.0]);
        assert_eq!(shift("RIGHT", 7, &[-1, 1]).run(&x), [0.0, 100.0]);
        assert!(shift("RIGHT", 13, &[1]).refusal().contains("unsigned"));
        assert!(shift("UP", 7, &[1]).refusal().contains("neither"));
    }
}
