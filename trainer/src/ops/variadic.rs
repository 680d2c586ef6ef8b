//! `Max`, `Min`, `Sum`, `Mean` of any number of values, with numpy's broadcasting.
//!
//! What is not a number stays so. Where two values are equal, the gradient of `Max` and `Min` goes
//! to the later one. Weights among the inputs do not train, but for those of `Sum`, which are biases.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::BoolDType;

use super::elementwise::ignore_consumed;
use super::{Built, NodeView, Operator, broadcast, integer, no_parameters, tensor};
use crate::graph::{Fact, Role, Tensor, at_least_one};
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[
    Operator::new("Max", 1, no_parameters, |n| extreme(n, larger)),
    Operator::new("Mean", 1, no_parameters, mean),
    Operator::new("Min", 1, no_parameters, |n| extreme(n, smaller)),
    Operator::new("Sum", 1, bias, |n| added(n, 1.0)),
];

fn bias(_: usize, elements: usize) -> Role {
    if elements > 1 { Role::Bias } else { Role::Constant }
}

/// The larger of each pair; both are of one shape and kind.
pub fn larger(a: Tensor, b: Tensor) -> Tensor {
    if tensor::kind(&a) == Kind::Int {
        return integer::pairs(a, b, Ord::max);
    }
    let first = Dispatch::float_greater(a.clone(), b.clone(), BoolDType::Native);
    chosen(first, a, b)
}

/// The smaller of each pair; both are of one shape and kind.
pub fn smaller(a: Tensor, b: Tensor) -> Tensor {
    if tensor::kind(&a) == Kind::Int {
        return integer::pairs(a, b, Ord::min);
    }
    let first = Dispatch::float_lower(a.clone(), b.clone(), BoolDType::Native);
    chosen(first, a, b)
}

/// `a` where `first` holds or `a` is not a number, `b` elsewhere.
fn chosen(first: Tensor, a: Tensor, b: Tensor) -> Tensor {
    let lost = Dispatch::float_is_nan(a.clone(), BoolDType::Native);
    tensor::choose(Dispatch::bool_or(first, lost), a, b)
}

/// The common type and shape of all inputs.
fn common(node: &NodeView<'_>) -> Result<Fact, String> {
    ignore_consumed(node)?;
    let first = node.input(0)?;
    if first.kind() == Kind::Bool {
        return Err("truth values have no order and no sum".into());
    }
    let mut all = Fact::runtime(first.element, first.dims.clone());
    for place in 1..node.inputs.len() {
        let next = node.input(place)?;
        if next.element != all.element {
            return Err(format!("{:?} and {:?} do not go together", all.element, next.element));
        }
        if node.opset < 8 && next.dims != all.dims {
            return Err(format!("shapes {all} and {next} differ (before operator set 8)"));
        }
        all.dims = broadcast(&all, next)?;
    }
    Ok(all)
}

fn extreme(node: &NodeView<'_>, operation: fn(Tensor, Tensor) -> Tensor) -> Result<Built, String> {
    let out = common(node)?;
    let shape = at_least_one(&out.dims);
    Built::one(out, move |i, _| {
        let all = i.take_all().into_iter();
        let all = all.map(|x| tensor::expand(tensor::widen(x, shape.len()), &shape));
        all.reduce(operation).unwrap_or_else(|| unreachable!("the first input was checked"))
    })
}

fn mean(node: &NodeView<'_>) -> Result<Built, String> {
    added(node, 1.0 / node.inputs.len().max(1) as f64)
}

fn added(node: &NodeView<'_>, factor: f64) -> Result<Built, String> {
    let out = common(node)?;
    node.float(0)?;
    let shape = at_least_one(&out.dims);
    Built::one(out, move |i, _| {
        let all = i.take_all().into_iter().map(|x| tensor::widen(x, shape.len()));
        let sum = all.reduce(Dispatch::float_add);
        let sum = sum.unwrap_or_else(|| unreachable!("the first input was checked"));
        if factor == 1.0 { sum } else { Dispatch::float_mul_scalar(sum, Scalar::Float(factor)) }
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};

    fn case(op: &str) -> Case {
        Case::new(&[2, 2]).floats("a", &[2], &[0.03, -0.5]).floats("b", &[2, 1], &[0.0, 1.0]).node(
            op,
            &["x", "a", "b"],
            vec![],
        )
    }

    #[test]
    fn three_values_broadcast_by_hand() {
        let x = [2.0, -1.0, 0.5, 0.25];
        assert_eq!(case("Max").run(&x), [2.0, 0.0, 1.0, 1.0]);
        assert_eq!(case("Min").run(&x), [0.0, -1.0, 0.03, -0.5]);
        near(&case("Sum").run(&x), &[2.03, -1.5, 1.53, 0.75], 1e-6);
        near(&case("Mean").run(&x), &[2.03 / 3.0, -0.5, 0.51, 0.25], 1e-6);
    }

    #[test]
    fn what_is_no_number_stays_so_on_either_side() {
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
            for op in ["Max", "Min"] {
                let case = Case::new(&[1]).floats("a", &[1], &[a]).node(op, &["x", "a"], vec![]);
                assert!(case.run(&[b])[0].is_nan());
            }
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in ["Max", "Min", "Sum", "Mean"] {
            case(op).check_gradients();
        }
    }

    #[test]
    fn what_does_not_broadcast_is_refused() {
        let text = Case::new(&[2, 3]).floats("a", &[2], &[0.0; 2]).node("Max", &["x", "a"], vec![]);
        assert!(text.refusal().contains("do not broadcast"));
    }
}
