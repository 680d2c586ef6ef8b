//! The `Reduce…` family. Its axes are an attribute up to operator set 17 (`ReduceSum`: 12) and an
//! input after it. Without axes all go, or with `noop_with_empty_axes` none: then only what is done
//! to each element is left.
//!
//! An axis of size zero gives what ONNX names for it. Integers are reduced on the host; means and
//! roots of them are rounded towards zero.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::BoolDType;

use super::{Built, NodeView, Operator, axes, integer, no_parameters, tensor};
use crate::graph::{Fact, Tensor, at_least_one};
use crate::onnx::{Element, Elements, HostTensor, Kind};

/// One line of the table.
macro_rules! reduction {
    ($name:literal, $last_attribute:literal, $which:ident) => {
        Operator::new($name, 1, no_parameters, |n| build(n, $last_attribute, Which::$which))
    };
}

pub const TABLE: &[Operator] = &[
    reduction!("ReduceL1", 17, L1),
    reduction!("ReduceL2", 17, L2),
    reduction!("ReduceLogSum", 17, LogSum),
    reduction!("ReduceLogSumExp", 17, LogSumExp),
    reduction!("ReduceMax", 17, Max),
    reduction!("ReduceMean", 17, Mean),
    reduction!("ReduceMin", 17, Min),
    reduction!("ReduceProd", 17, Prod),
    reduction!("ReduceSum", 12, Sum),
    reduction!("ReduceSumSquare", 17, SumSquare),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    L1,
    L2,
    LogSum,
    LogSumExp,
    Max,
    Mean,
    Min,
    Prod,
    Sum,
    SumSquare,
}

/// Which axes go, and the shape without them.
struct Reduction {
    axes: Vec<usize>,
    /// The shape of the result.
    dims: Vec<usize>,
}

impl Reduction {
    fn read(node: &NodeView<'_>, x: &Fact, last_attribute: i64) -> Result<Self, String> {
        let keep = node.attributes.flag("keepdims", true)?;
        let given = node.axes(1, last_attribute)?;
        let nothing_if_empty =
            node.opset > last_attribute && node.attributes.flag("noop_with_empty_axes", false)?;
        let axes = match given {
            Some(list) if !list.is_empty() => axes(list, x.rank())?,
            _ if nothing_if_empty => Vec::new(),
            _ => (0..x.rank()).collect(),
        };
        let kept = x.dims.iter().enumerate().filter(|(a, _)| keep || !axes.contains(a));
        let dims = kept.map(|(a, d)| if axes.contains(&a) { 1 } else { *d }).collect();
        Ok(Self { axes, dims })
    }
}

fn build(node: &NodeView<'_>, last_attribute: i64, which: Which) -> Result<Built, String> {
    let x = node.optional(0).ok_or("input 0 is missing")?;
    let element = x.element;
    let Reduction { axes, dims } = Reduction::read(node, x, last_attribute)?;
    let shape = at_least_one(&dims);
    let out = x.reshaped(dims);
    if element.kind() == Kind::Bool && !matches!(which, Which::Max | Which::Min) {
        return Err("truth values have no sum".into());
    }
    if x.count() == 0 {
        node.known.borrow_mut().insert(0);
        return of_nothing(out, which);
    }
    if element.kind() == Kind::Float {
        return Built::one(out, move |i, _| {
            tensor::reshape(floats(which, i.take(0), &axes), &shape)
        });
    }
    if which == Which::LogSumExp {
        return Err("it is not defined for integers".into());
    }
    let order = reduced_last(x.rank(), &axes);
    let group = axes.iter().map(|a| x.dims[*a]).product();
    Built::one(out, move |i, _| {
        let x = i.take(0);
        let x = if order.len() < 2 { x } else { tensor::permute(x, &order) };
        let (values, device) = integer::download(x);
        let reduced: Vec<i64> = values.chunks(group).map(|group| ints(which, group)).collect();
        if element != Element::Bool {
            return integer::wrapped(tensor::ints_from_host(reduced, &shape, &device), element);
        }
        let elements = Elements::Bool(reduced.into_iter().map(|v| v != 0).collect());
        tensor::upload(&HostTensor { element, shape: shape.clone(), elements }, &device)
    })
}

/// The axes in their order, but for those that go, which come last.
fn reduced_last(rank: usize, axes: &[usize]) -> Vec<usize> {
    (0..rank).filter(|a| !axes.contains(a)).chain(axes.iter().copied()).collect()
}

/// What no elements give: for floats what ONNX names, for others the bounds of their type.
fn of_nothing(out: Fact, which: Which) -> Result<Built, String> {
    let (low, high) = if out.kind() == Kind::Bool { (0, 1) } else { out.element.range() };
    let (float, other) = match which {
        Which::L1 | Which::L2 | Which::Sum | Which::SumSquare => (0.0, Some(0)),
        Which::Prod => (1.0, Some(1)),
        Which::Min => (f32::INFINITY, Some(high)),
        Which::Max => (f32::NEG_INFINITY, Some(low)),
        Which::LogSum | Which::LogSumExp => (f32::NEG_INFINITY, None),
        Which::Mean => (f32::NAN, None),
    };
    let elements = match (out.kind(), other) {
        (Kind::Float, _) => Elements::Float(vec![float]),
        (Kind::Int, Some(value)) => Elements::Int(vec![value]),
        (Kind::Bool, Some(value)) => Elements::Bool(vec![value != 0]),
        _ => return Err("no elements have no such number".into()),
    };
    let shape = at_least_one(&out.dims);
    let single = HostTensor { element: out.element, shape: vec![1; shape.len()], elements };
    Built::one(out, move |_, context| {
        tensor::expand(tensor::upload(&single, &context.device), &shape)
    })
}

fn floats(which: Which, x: Tensor, axes: &[usize]) -> Tensor {
    let over = |x, operation: fn(Tensor, usize) -> Tensor| {
        axes.iter().fold(x, |x, axis| operation(x, *axis))
    };
    let sum = |x| over(x, Dispatch::float_sum_dim);
    let squares = |x: Tensor| sum(Dispatch::float_mul(x.clone(), x));
    match which {
        Which::L1 => sum(Dispatch::float_abs(x)),
        Which::L2 => root(squares(x)),
        Which::LogSum => Dispatch::float_log(sum(x)),
        Which::LogSumExp => {
            let top = over(Dispatch::float_detach(x.clone()), Dispatch::float_max_dim);
            let endless = Dispatch::float_is_inf(top.clone(), BoolDType::Native);
            let top = Dispatch::float_mask_fill(top, endless, Scalar::Float(0.0));
            let rest = Dispatch::float_exp(Dispatch::float_sub(x, top.clone()));
            Dispatch::float_add(Dispatch::float_log(sum(rest)), top)
        }
        Which::Max => over(x, Dispatch::float_max_dim),
        Which::Mean => over(x, Dispatch::float_mean_dim),
        Which::Min => over(x, Dispatch::float_min_dim),
        Which::Prod => over(x, Dispatch::float_prod_dim),
        Which::Sum => sum(x),
        Which::SumSquare => squares(x),
    }
}

/// The square root, with gradient zero at zero.
pub fn root(x: Tensor) -> Tensor {
    let zero = Dispatch::float_equal_elem(x.clone(), Scalar::Float(0.0), BoolDType::Native);
    let safe = Dispatch::float_mask_fill(x, zero.clone(), Scalar::Float(1.0));
    let factor = Dispatch::bool_into_float(Dispatch::bool_not(zero), burn::tensor::FloatDType::F32);
    Dispatch::float_mul(Dispatch::float_sqrt(safe), factor)
}

fn ints(which: Which, group: &[i64]) -> i64 {
    let sum = |f: fn(i64) -> i64| group.iter().fold(0i64, |sum, v| sum.wrapping_add(f(*v)));
    let square = |v: i64| v.wrapping_mul(v);
    match which {
        Which::L1 => sum(i64::wrapping_abs),
        Which::L2 => (sum(square) as f64).sqrt() as i64,
        Which::LogSum | Which::LogSumExp => (sum(|v| v) as f64).ln() as i64,
        Which::Max => group.iter().copied().max().unwrap_or(0),
        Which::Mean => integer::divide(sum(|v| v), group.len() as i64),
        Which::Min => group.iter().copied().min().unwrap_or(0),
        Which::Prod => group.iter().fold(1, |product, v| product.wrapping_mul(*v)),
        Which::Sum => sum(|v| v),
        Which::SumSquare => sum(square),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near, sequence};
    use crate::onnx::write::{int, ints};

    const ALL: [&str; 10] = [
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
    ];

    #[test]
    fn axes_are_an_attribute_and_then_an_input() {
        let old = Case::new(&[1, 2, 3]).node(
            "ReduceMean",
            &["x"],
            vec![ints("axes", &[-1]), int("keepdims", 0)],
        );
        assert_eq!(old.run(&sequence(6)), [2.0, 5.0]);
        assert_eq!(old.output_shape(), [1, 2]);
        for (op, opset) in [("ReduceMean", 18), ("ReduceSum", 13)] {
            let new = Case::new(&[1, 2, 3]).opset(opset).ints("axes", &[1]).node(
                op,
                &["x", "axes"],
                vec![],
            );
            let mean = if op == "ReduceMean" { 0.5 } else { 1.0 };
            near(&new.run(&sequence(6)), &[5.0 * mean, 7.0 * mean, 9.0 * mean], 1e-6);
            assert_eq!(new.output_shape(), [1, 1, 3]);
        }
    }

    #[test]
    fn values_by_hand() {
        let want = [10.0, 30f32.sqrt(), 10f32.ln(), 4.440_19, 4.0, 2.5, 1.0, 24.0, 10.0, 30.0];
        for (op, want) in ALL.into_iter().zip(want) {
            let case = Case::new(&[2, 2]).node(op, &["x"], vec![int("keepdims", 0)]);
            near(&case.run(&sequence(4)), &[want], 1e-5);
        }
        let large = Case::new(&[1, 2]).node("ReduceLogSumExp", &["x"], vec![]);
        near(&large.run(&[1000.0, 1000.0]), &[1_000.693], 1e-3);
    }

    #[test]
    fn without_axes_nothing_goes_if_the_node_says_so() {
        for (op, want) in [("ReduceSum", [1.0, 2.0]), ("ReduceSumSquare", [1.0, 4.0])] {
            let case =
                Case::new(&[1, 2]).opset(18).node(op, &["x"], vec![int("noop_with_empty_axes", 1)]);
            assert_eq!(case.run(&[1.0, 2.0]), want);
        }
    }

    #[test]
    fn integers_wrap_and_round_towards_zero() {
        let run = |op: &str, values: &[i64]| {
            Case::new(&[1]).ints("a", values).node(op, &["a"], vec![]).run(&[0.0])
        };
        assert_eq!(run("ReduceSum", &[i64::MAX, 1]), [i64::MIN as f32]);
        assert_eq!(run("ReduceMean", &[-3, 0]), [-1.0]);
        assert_eq!(run("ReduceMax", &[-3, 0]), [0.0]);
        assert_eq!(run("ReduceProd", &[-3, 5]), [-15.0]);
        assert_eq!(run("ReduceL2", &[3, 4]), [5.0]);
    }

    #[test]
    fn a_length_of_zero_has_gradient_zero() {
        use burn::tensor::{Device, Tensor};
        let device = Device::flex().autodiff();
        let x = Tensor::<1>::from_floats([0.0f32, 0.0], &device).require_grad();
        let length = super::floats(super::Which::L2, x.clone().into_dispatch(), &[0]);
        let gradients = Tensor::<1>::from_dispatch(length).backward();
        let gradient = x.grad(&gradients).expect("a gradient").into_data();
        assert_eq!(gradient.iter::<f32>().collect::<Vec<_>>(), [0.0, 0.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in ALL {
            let case = Case::new(&[2, 3, 4]).opset(12);
            let last = vec![ints("axes", &[1, 2]), int("keepdims", 0)];
            if op == "ReduceLogSum" {
                case.inner("Exp", &["x"], "e", vec![]).node(op, &["e"], last).check_gradients();
            } else {
                case.node(op, &["x"], last).check_gradients();
            }
        }
    }

    #[test]
    fn an_axis_named_twice_is_refused() {
        let attributes = vec![ints("axes", &[1, -1])];
        let text = Case::new(&[2, 3]).node("ReduceMax", &["x"], attributes).refusal();
        assert!(text.contains("twice"), "{text}");
    }
}
