//! `Where`, `Trilu`, `OneHot`: one of two values at every place.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::{BoolDType, Device, IntDType};

use super::index::offsets;
use super::{Built, NodeView, Operator, axis, broadcast, no_parameters, tensor};
use crate::graph::{Fact, Tensor, at_least_one};
use crate::onnx::{Element, Elements, HostTensor, Kind};

pub const TABLE: &[Operator] = &[
    Operator::new("Where", 9, no_parameters, select),
    Operator::new("Trilu", 14, no_parameters, trilu),
    Operator::new("OneHot", 9, no_parameters, one_hot),
];

fn select(node: &NodeView<'_>) -> Result<Built, String> {
    let (condition, yes) = (node.of_kind(0, Kind::Bool)?, node.input(1)?);
    let no = node.of_kind(2, yes.kind())?;
    let both = Fact::runtime(yes.element, broadcast(yes, no)?);
    let dims = broadcast(condition, &both)?;
    let shape = at_least_one(&dims);
    Built::one(both.reshaped(dims), move |i, _| {
        let mut next = |place| tensor::expand(tensor::widen(i.take(place), shape.len()), &shape);
        let (condition, yes, no) = (next(0), next(1), next(2));
        tensor::choose(condition, yes, no)
    })
}

fn zero(element: Element, device: &Device) -> Tensor {
    let elements = match element.kind() {
        Kind::Float => Elements::Float(vec![0.0]),
        Kind::Int => Elements::Int(vec![0]),
        Kind::Bool => Elements::Bool(vec![false]),
    };
    tensor::upload(&HostTensor { element, shape: vec![1], elements }, device)
}

/// The part of every matrix on and above (or below) its `k`-th diagonal.
fn trilu(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let &[.., rows, columns] = x.dims.as_slice() else {
        return Err(format!("input {x} has not two axes"));
    };
    let upper = node.attributes.flag("upper", true)?;
    let reach = rows.max(columns) as i64;
    let diagonal = match node.optional_ints(1)? {
        None => 0,
        Some([k]) => (*k).clamp(-reach, reach),
        Some(_) => return Err("k is not one number".into()),
    };
    let (dims, element) = (x.dims.clone(), x.element);
    Built::one(x.reshaped(dims.clone()), move |i, context| {
        let rank = dims.len();
        let at = |count, axis| offsets(count, 1, axis, rank, &context.device);
        let row = tensor::expand(at(rows, rank - 2), &dims);
        let column = tensor::expand(at(columns, rank - 1), &dims);
        let limit = Dispatch::int_add_scalar(row, Scalar::Int(diagonal));
        let compare = if upper { Dispatch::int_greater_equal } else { Dispatch::int_lower_equal };
        let kept = compare(column, limit, BoolDType::Native);
        let zeros = tensor::widen(zero(element, &context.device), rank);
        tensor::choose(kept, i.take(0), tensor::expand(zeros, &dims))
    })
}

/// A negative class counts from the end since operator set 11; one that does not exist is nowhere
/// on.
fn one_hot(node: &NodeView<'_>) -> Result<Built, String> {
    let (classes, values) = (node.input(0)?, node.input(2)?);
    let (depth, negative) = (depth(node)?, node.opset >= 11);
    let along = axis(node.attributes.int("axis", -1)?, classes.rank() + 1)?;
    if values.dims != [2] || classes.kind() == Kind::Bool {
        return Err(format!("classes {classes} and values {values} do not fit"));
    }
    let mut dims = classes.dims.clone();
    dims.insert(along, 1);
    let single = dims.clone();
    dims[along] = depth;
    Built::one(values.reshaped(dims.clone()), move |i, context| {
        let classes = tensor::reshape(i.take(0), &single);
        let classes = match tensor::kind(&classes) {
            Kind::Float => Dispatch::float_into_int(classes, IntDType::I64),
            _ => classes,
        };
        let classes = tensor::expand(classes, &dims);
        let is = |from: i64| {
            let at = offsets(depth, 1, along, dims.len(), &context.device);
            let at = Dispatch::int_add_scalar(at, Scalar::Int(from));
            let at = tensor::expand(at, &dims);
            Dispatch::int_equal(classes.clone(), at, BoolDType::Native)
        };
        let front = is(0);
        let mask = if negative { Dispatch::bool_or(front, is(-(depth as i64))) } else { front };
        let values = i.take(2);
        let value = |place| {
            let one = tensor::narrow(values.clone(), 0, place, place + 1);
            tensor::expand(tensor::widen(one, dims.len()), &dims)
        };
        tensor::choose(mask, value(1), value(0))
    })
}

fn depth(node: &NodeView<'_>) -> Result<usize, String> {
    let given = match node.optional(1).map(Fact::kind) {
        Some(Kind::Float) => node.scalar(1)?.map(|depth| depth as i64),
        _ => <&[i64; 1]>::try_from(node.ints(1)?).ok().map(|[depth]| *depth),
    };
    given
        .and_then(|depth| usize::try_from(depth).ok())
        .filter(|depth| (1..=1 << 24).contains(depth))
        .ok_or_else(|| "its depth is no number of classes".into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
    use crate::onnx::write::int;

    #[test]
    fn a_condition_chooses_with_broadcasting() {
        let case = Case::new(&[2, 2])
            .floats("limit", &[], &[2.5])
            .floats("w", &[2, 1], &[10.0, 20.0])
            .inner("Greater", &["x", "limit"], "c", vec![])
            .node("Where", &["c", "x", "w"], vec![]);
        assert_eq!(case.run(&sequence(4)), [10.0, 10.0, 3.0, 4.0]);
        assert_eq!(case.roles(), []);
    }

    #[test]
    fn triangles_by_hand() {
        let run = |upper, k: &[i64]| {
            Case::new(&[2, 3])
                .ints("k", k)
                .node("Trilu", &["x", "k"], vec![int("upper", upper)])
                .run(&sequence(6))
        };
        assert_eq!(run(1, &[0]), [1.0, 2.0, 3.0, 0.0, 5.0, 6.0]);
        assert_eq!(run(1, &[2]), [0.0, 0.0, 3.0, 0.0, 0.0, 0.0]);
        assert_eq!(run(0, &[-1]), [0.0, 0.0, 0.0, 4.0, 0.0, 0.0]);
        assert_eq!(run(0, &[i64::MAX]), sequence(6));
    }

    #[test]
    fn classes_become_rows() {
        let run = |opset, axis| {
            Case::new(&[3])
                .opset(opset)
                .ints("depth", &[3])
                .floats("values", &[2], &[-1.0, 1.0])
                .node("OneHot", &["x", "depth", "values"], vec![int("axis", axis)])
                .run(&[1.0, -1.0, 7.0])
        };
        assert_eq!(run(17, -1), [-1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0]);
        assert_eq!(run(17, 0), [-1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0]);
        assert_eq!(run(9, -1), [-1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[2, 1, 3])
            .floats("limit", &[], &[0.0])
            .inner("Greater", &["x", "limit"], "c", vec![])
            .inner("Mul", &["x", "x"], "square", vec![])
            .ints("axes", &[1])
            .inner("ReduceMean", &["x"], "mean", vec![])
            .node("Where", &["c", "square", "mean"], vec![])
            .check_gradients();
        Case::new(&[2, 3])
            .random("w", &[3])
            .inner("Greater", &["x", "w"], "c", vec![])
            .node("Where", &["c", "w", "x"], vec![])
            .check_gradients();
        Case::new(&[2, 3, 3]).node("Trilu", &["x"], vec![]).check_gradients();
    }
}
