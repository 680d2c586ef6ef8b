//! `Equal`, `Greater`, `Less`, `GreaterOrEqual`, `LessOrEqual`, `IsNaN`, `IsInf`: truth values from
//! numbers, with numpy's broadcasting.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::BoolDType;

use super::{Built, NodeView, Operator, broadcast, no_parameters, tensor};
use crate::graph::{Fact, Tensor, at_least_one};
use crate::onnx::{Element, Kind};

pub const TABLE: &[Operator] = &[
    Operator::new("Equal", 7, no_parameters, |n| {
        build(n, Dispatch::float_equal, Dispatch::int_equal, Some(Dispatch::bool_equal))
    }),
    Operator::new("Greater", 7, no_parameters, |n| {
        build(n, Dispatch::float_greater, Dispatch::int_greater, None)
    }),
    Operator::new("Less", 7, no_parameters, |n| {
        build(n, Dispatch::float_lower, Dispatch::int_lower, None)
    }),
    Operator::new("GreaterOrEqual", 12, no_parameters, |n| {
        build(n, Dispatch::float_greater_equal, Dispatch::int_greater_equal, None)
    }),
    Operator::new("LessOrEqual", 12, no_parameters, |n| {
        build(n, Dispatch::float_lower_equal, Dispatch::int_lower_equal, None)
    }),
    Operator::new("IsNaN", 9, no_parameters, is_nan),
    Operator::new("IsInf", 10, no_parameters, is_inf),
];

type Comparison = fn(Tensor, Tensor, BoolDType) -> Tensor;

fn build(
    node: &NodeView<'_>,
    floats: Comparison,
    ints: Comparison,
    bools: Option<fn(Tensor, Tensor) -> Tensor>,
) -> Result<Built, String> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let dims = broadcast(a, b)?;
    let shape = at_least_one(&dims);
    let unfit = || format!("{:?} and {:?} are not compared", a.element, b.element);
    let kind = if a.kind() == b.kind() { a.kind() } else { return Err(unfit()) };
    let truths = if kind == Kind::Bool { bools.ok_or_else(unfit)? } else { Dispatch::bool_equal };
    Built::one(Fact::runtime(Element::Bool, dims), move |i, _| {
        let mut next = |place| tensor::expand(tensor::widen(i.take(place), shape.len()), &shape);
        let (a, b) = (next(0), next(1));
        match kind {
            Kind::Float => floats(a, b, BoolDType::Native),
            Kind::Int => ints(a, b, BoolDType::Native),
            Kind::Bool => truths(a, b),
        }
    })
}

fn is_nan(node: &NodeView<'_>) -> Result<Built, String> {
    let dims = node.float(0)?.dims.clone();
    Built::one(Fact::runtime(Element::Bool, dims), |i, _| {
        Dispatch::float_is_nan(i.take(0), BoolDType::Native)
    })
}

fn is_inf(node: &NodeView<'_>) -> Result<Built, String> {
    let dims = node.float(0)?.dims.clone();
    let positive = node.attributes.flag("detect_positive", true)?;
    let negative = node.attributes.flag("detect_negative", true)?;
    let at = |wanted: bool, value| if wanted { value } else { f64::NAN };
    let (up, down) = (at(positive, f64::INFINITY), at(negative, f64::NEG_INFINITY));
    Built::one(Fact::runtime(Element::Bool, dims), move |i, _| {
        let x = i.take(0);
        let is = |x, value| Dispatch::float_equal_elem(x, Scalar::Float(value), BoolDType::Native);
        Dispatch::bool_or(is(x.clone(), up), is(x, down))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::onnx::write::int;

    #[test]
    fn numbers_compare_with_broadcasting() {
        let floats = |op: &str| {
            Case::new(&[2, 2])
                .floats("w", &[2, 1], &[2.0, 3.0])
                .node(op, &["x", "w"], vec![])
                .run(&[1.0, 2.0, f32::NAN, 4.0])
        };
        assert_eq!(floats("Equal"), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(floats("Greater"), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(floats("Less"), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(floats("GreaterOrEqual"), [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(floats("LessOrEqual"), [1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn integers_and_truth_values_compare_with_their_like() {
        let case = |op: &str, to: i64| {
            Case::new(&[2]).inner("Cast", &["x"], "i", vec![int("to", to)]).node(
                op,
                &["i", "i"],
                vec![],
            )
        };
        assert_eq!(case("LessOrEqual", 6).run(&[1.0, 2.0]), [1.0, 1.0]);
        assert_eq!(case("Equal", 9).run(&[1.0, 0.0]), [1.0, 1.0]);
        assert!(case("Less", 9).refusal().contains("are not compared"));
        let mixed = Case::new(&[2]).ints("i", &[1]).node("Less", &["x", "i"], vec![]);
        assert!(mixed.refusal().contains("F32 and I64 are not compared"));
    }

    #[test]
    fn what_is_no_number_is_found() {
        let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
        let run = |op: &str, attributes| Case::new(&[4]).node(op, &["x"], attributes).run(&x);
        assert_eq!(run("IsNaN", vec![]), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(run("IsInf", vec![]), [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(run("IsInf", vec![int("detect_negative", 0)]), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(run("IsInf", vec![int("detect_positive", 0)]), [0.0, 0.0, 1.0, 0.0]);
    }
}
