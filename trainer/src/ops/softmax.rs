//! `Softmax`, `LogSoftmax` and `Hardmax` (one at the first of the largest, zero elsewhere).
//!
//! Before operator set 13 these work on the input flattened to a matrix at `axis` (default 1).

use burn::backend::Dispatch;
use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::tensor::{Device, IndexingUpdateOp, IntDType};

use super::{Built, NodeView, Operator, axis, no_parameters, tensor};
use crate::graph::Tensor;

pub const TABLE: &[Operator] = &[
    Operator::new("Hardmax", 1, no_parameters, |n| build(n, hardmax)),
    Operator::new("LogSoftmax", 1, no_parameters, |n| {
        build(n, |x, along, _| Dispatch::log_softmax(x, along))
    }),
    Operator::new("Softmax", 1, no_parameters, |n| {
        build(n, |x, along, _| Dispatch::softmax(x, along))
    }),
];

fn build(
    node: &NodeView<'_>,
    operation: fn(Tensor, usize, &Device) -> Tensor,
) -> Result<Built, String> {
    let x = node.float(0)?;
    let out = x.reshaped(x.dims.clone());
    let along = axis(node.attributes.int("axis", if node.opset < 13 { 1 } else { -1 })?, x.rank())?;
    if node.opset >= 13 || along + 1 == x.rank() {
        return Built::one(out, move |i, context| operation(i.take(0), along, &context.device));
    }
    let (rows, columns) = x.dims.split_at(along);
    let matrix = [rows.iter().product(), columns.iter().product()];
    let shape = x.dims.clone();
    Built::one(out, move |i, context| {
        let x = tensor::reshape(i.take(0), &matrix);
        tensor::reshape(operation(x, 1, &context.device), &shape)
    })
}

fn hardmax(x: Tensor, along: usize, device: &Device) -> Tensor {
    let shape = tensor::dims(&x);
    let places = Dispatch::float_argmax(x, along, IntDType::I64);
    let every = |value, shape: &[usize]| {
        tensor::expand(tensor::from_host(vec![value], &vec![1; shape.len()], device), shape)
    };
    let (zeros, ones) = (every(0.0, &shape), every(1.0, &tensor::dims(&places)));
    Dispatch::float_scatter(along, zeros, places, ones, IndexingUpdateOp::Add)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::onnx::write::int;

    #[test]
    fn values_by_hand_and_no_overflow() {
        let run = |op: &str, x: &[f32]| Case::new(&[1, 3]).node(op, &["x"], vec![]).run(x);
        near(&run("Softmax", &[1.0, 2.0, 3.0]), &[0.090_030_57, 0.244_728_48, 0.665_240_94], 1e-6);
        near(&run("LogSoftmax", &[1.0, 2.0, 3.0]), &[-2.407_606, -1.407_606, -0.407_606], 1e-5);
        near(&run("Softmax", &[1000.0, 1000.0, 0.0]), &[0.5, 0.5, 0.0], 1e-6);
    }

    #[test]
    fn the_first_of_the_largest_gets_the_one() {
        let case = Case::new(&[2, 3]).node("Hardmax", &["x"], vec![]);
        assert_eq!(case.run(&[1.0, 3.0, 3.0, 2.0, 1.0, 0.0]), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        // Behind a node, because a softmax at the graph's end is taken off for training.
        for op in ["Softmax", "LogSoftmax"] {
            for opset in [11, 17] {
                Case::new(&[2, 3, 2])
                    .opset(opset)
                    .inner(op, &["x"], "s", vec![int("axis", 1)])
                    .node("Tanh", &["s"], vec![])
                    .check_gradients();
            }
        }
    }

    #[test]
    fn an_old_operator_set_flattens() {
        let old = Case::new(&[1, 2, 2]).opset(11).node("Softmax", &["x"], vec![]);
        near(&old.run(&[0.0; 4]), &[0.25; 4], 1e-6);
        let new = Case::new(&[1, 2, 2]).node("Softmax", &["x"], vec![int("axis", 1)]);
        near(&new.run(&[0.0; 4]), &[0.5; 4], 1e-6);
    }
}
