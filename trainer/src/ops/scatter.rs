//! `ScatterElements` (once `Scatter`), `ScatterND`: entries replaced, added to, or made the larger
//! or smaller of two, by their indices.
//!
//! Multiplying is refused: where an index comes twice its gradient is not what burn computes.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::{BoolDType, FloatDType, IndexingUpdateOp};

use super::index::{Lookup, offsets};
use super::{Built, NodeView, Operator, axis, integer, no_parameters, tensor};
use crate::graph::{Fact, Tensor, at_least_one};
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[
    Operator::new("Scatter", 9, no_parameters, scatter_elements),
    Operator::new("ScatterElements", 11, no_parameters, scatter_elements),
    Operator::new("ScatterND", 11, no_parameters, scatter_nd),
];

/// Data, indices and updates, which fit together in kind.
fn inputs<'a>(node: &'a NodeView<'_>) -> Result<[&'a Fact; 3], String> {
    let x = node.input(0)?;
    Ok([x, node.of_kind(1, Kind::Int)?, node.of_kind(2, x.kind())?])
}

fn update(node: &NodeView<'_>, x: &Fact) -> Result<IndexingUpdateOp, String> {
    match node.attributes.text("reduction", "none")? {
        "none" => Ok(IndexingUpdateOp::Assign),
        "add" if x.kind() != Kind::Bool => Ok(IndexingUpdateOp::Add),
        "max" if x.kind() != Kind::Bool => Ok(IndexingUpdateOp::Max),
        "min" if x.kind() != Kind::Bool => Ok(IndexingUpdateOp::Min),
        other => Err(format!("reduction '{other}' is not done for {:?}", x.element)),
    }
}

/// `data` changed by `values` at `indices` along the first axis.
fn scatter(data: Tensor, indices: Tensor, values: Tensor, update: IndexingUpdateOp) -> Tensor {
    match (tensor::kind(&data), update) {
        (Kind::Float, IndexingUpdateOp::Max | IndexingUpdateOp::Min) => {
            extreme(data, &indices, values, update)
        }
        (Kind::Float, _) => Dispatch::float_select_assign(data, 0, indices, values, update),
        (Kind::Int, _) => Dispatch::int_select_assign(data, 0, indices, values, update),
        (Kind::Bool, _) => {
            let (data, values) = (tensor::integers(data), tensor::integers(values));
            tensor::truths(Dispatch::int_select_assign(data, 0, indices, values, update))
        }
    }
}

/// The larger or smaller of two. Equal values share the gradient, unless the data have it too: burn's
/// own gradient is right only where no index comes twice.
fn extreme(data: Tensor, indices: &Tensor, values: Tensor, update: IndexingUpdateOp) -> Tensor {
    const TRUTH: BoolDType = BoolDType::Native;
    let fixed = Dispatch::float_detach;
    let found = Dispatch::float_select_assign(
        fixed(data.clone()),
        0,
        indices.clone(),
        fixed(values.clone()),
        update,
    );
    let kept = Dispatch::float_equal(found.clone(), data.clone(), TRUTH);
    let kept = Dispatch::bool_or(kept, Dispatch::float_is_nan(found.clone(), TRUTH));
    let at = |x, places| Dispatch::float_select(x, 0, places);
    let number = |truth| Dispatch::bool_into_float(truth, FloatDType::F32);
    let zeros = Dispatch::float_mul_scalar(number(kept.clone()), Scalar::Float(0.0));
    let add = |values| {
        let update = IndexingUpdateOp::Add;
        Dispatch::float_select_assign(zeros.clone(), 0, indices.clone(), values, update)
    };
    let won = Dispatch::float_equal(at(found.clone(), indices.clone()), values.clone(), TRUTH);
    let winners = add(number(won.clone()));
    let share = Dispatch::float_clamp_min(at(winners, indices.clone()), Scalar::Float(1.0));
    let values = Dispatch::float_mask_fill(values, Dispatch::bool_not(won), Scalar::Float(0.0));
    tensor::choose(kept, data, add(Dispatch::float_div(values, share)))
}

fn scatter_elements(node: &NodeView<'_>) -> Result<Built, String> {
    let [x, indices, updates] = inputs(node)?;
    let along = axis(node.attributes.int("axis", 0)?, x.rank())?;
    let fits = |a: usize| a == along || indices.dims[a] <= x.dims[a];
    if indices.dims != updates.dims || indices.rank() != x.rank() || !(0..x.rank()).all(fits) {
        return Err(format!("data {x}, indices {indices} and updates {updates} do not fit"));
    }
    let lookup = Lookup::new(indices, &[x.dims[along]])?;
    let (update, element) = (update(node, x)?, x.element);
    let (dims, covered) = (x.dims.clone(), indices.dims.clone());
    let (total, count) = (x.count(), indices.count());
    Built::one(x.reshaped(dims.clone()), move |i, context| {
        let data = tensor::reshape(i.take(0), &[total]);
        let stride = |axis: usize| dims[axis + 1..].iter().product::<usize>();
        let step = Scalar::Int(stride(along) as i64);
        let mut flat = Dispatch::int_mul_scalar(lookup.flat(i.take(1)), step);
        for (a, size) in covered.iter().enumerate().filter(|(a, _)| *a != along) {
            let places = offsets(*size, stride(a), a, dims.len(), &context.device);
            flat = Dispatch::int_add(flat, places);
        }
        let values = tensor::reshape(i.take(2), &[count]);
        let out = scatter(data, tensor::reshape(flat, &[count]), values, update);
        integer::wrapped(tensor::reshape(out, &dims), element)
    })
}

fn scatter_nd(node: &NodeView<'_>) -> Result<Built, String> {
    let [x, indices, updates] = inputs(node)?;
    let Some((depth, front)) = indices.dims.split_last() else {
        return Err("the indices have no axes".into());
    };
    let unfit = || format!("data {x}, indices {indices} and updates {updates} do not fit");
    if *depth > x.rank() {
        return Err(unfit());
    }
    let (looked, kept) = x.dims.split_at(*depth);
    if updates.dims != [front, kept].concat() {
        return Err(unfit());
    }
    let lookup = Lookup::new(indices, looked)?;
    let (update, element) = (update(node, x)?, x.element);
    let (depth, count, row) = (*depth, indices.count() / depth, kept.iter().product::<usize>());
    let (rows, shape) = (looked.iter().product::<usize>(), at_least_one(&x.dims));
    Built::one(x.reshaped(x.dims.clone()), move |i, _| {
        let data = tensor::reshape(i.take(0), &[rows, row]);
        let flat = lookup.joined(&tensor::reshape(i.take(1), &[count, depth]));
        let values = tensor::reshape(i.take(2), &[count, row]);
        let out = scatter(data, tensor::reshape(flat, &[count]), values, update);
        integer::wrapped(tensor::reshape(out, &shape), element)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
    use crate::onnx::write::{int, text};

    fn elements(reduction: &str) -> Case {
        Case::new(&[2, 3])
            .ints("flat", &[2, -3, 1, 1])
            .ints("shape", &[2, 2])
            .inner("Reshape", &["flat", "shape"], "i", vec![])
            .ints("ends", &[2])
            .ints("starts", &[0])
            .ints("axes", &[1])
            .inner("Slice", &["x", "starts", "ends", "axes"], "part", vec![])
            .inner("Mul", &["part", "part"], "u", vec![])
            .node(
                "ScatterElements",
                &["x", "i", "u"],
                vec![int("axis", 1), text("reduction", reduction)],
            )
    }

    fn nd(reduction: &str, indices: &[i64]) -> Case {
        Case::new(&[3, 2])
            .ints("flat", indices)
            .ints("shape", &[2, 1])
            .inner("Reshape", &["flat", "shape"], "i", vec![])
            .ints("ends", &[2])
            .ints("starts", &[0])
            .inner("Slice", &["x", "starts", "ends"], "part", vec![])
            .inner("Mul", &["part", "part"], "u", vec![])
            .node("ScatterND", &["x", "i", "u"], vec![text("reduction", reduction)])
    }

    #[test]
    fn values_by_hand() {
        let x = sequence(6);
        assert_eq!(elements("add").run(&x), [5.0, 2.0, 4.0, 4.0, 46.0, 6.0]);
        assert_eq!(nd("none", &[-1, 0]).run(&x), [9.0, 16.0, 3.0, 4.0, 1.0, 4.0]);
        assert_eq!(nd("add", &[1, 1]).run(&x), [1.0, 2.0, 13.0, 24.0, 5.0, 6.0]);
    }

    #[test]
    fn the_larger_and_the_smaller_stay() {
        assert_eq!(elements("max").run(&sequence(6)), [4.0, 2.0, 3.0, 4.0, 25.0, 6.0]);
        let x = [1.0, 0.5, -3.0, f32::NEG_INFINITY, f32::NAN, 9.0];
        let got = nd("max", &[1, 1]).run(&x);
        assert_eq!(got[..4], [1.0, 0.5, 9.0, f32::INFINITY]);
        assert!(got[4].is_nan());
        assert_eq!(nd("min", &[1, 1]).run(&x)[..4], [1.0, 0.5, -3.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn what_has_no_gradient_or_does_not_fit_is_refused() {
        assert!(nd("mul", &[0, 1]).refusal().contains("'mul'"));
        assert!(nd("none", &[0, 3]).refusal().contains("index 3"));
    }

    #[test]
    fn gradients_match_finite_differences() {
        elements("add").check_gradients();
        nd("add", &[1, 1]).check_gradients();
        nd("none", &[2, 0]).check_gradients();
        for reduction in ["max", "min"] {
            elements(reduction).check_gradients();
            nd(reduction, &[1, 1]).check_gradients();
            nd(reduction, &[2, -3]).check_gradients();
        }
        Case::new(&[3])
            .random("w", &[2])
            .ints("i", &[2, 0])
            .node("ScatterElements", &["x", "i", "w"], vec![])
            .check_gradients();
        Case::new(&[2])
            .random("w", &[3])
            .ints("i", &[2, 0])
            .node("ScatterElements", &["w", "i", "x"], vec![])
            .check_gradients();
    }
}
