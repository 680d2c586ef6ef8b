//! `Softmax` and `LogSoftmax`.
//!
//! Before operator set 13 these worked on the input flattened to a matrix (default axis 1); that is
//! the same only along the last axis, so other axes are refused there.

use burn::backend::Dispatch;
use burn::backend::ops::ActivationOps;

use super::{Built, NodeView, Operator, axis, no_parameters};
use crate::graph::{Fact, Tensor};

pub const TABLE: &[Operator] = &[
    Operator::new("Softmax", 1, no_parameters, |n| build(n, Dispatch::softmax)),
    Operator::new("LogSoftmax", 1, no_parameters, |n| build(n, Dispatch::log_softmax)),
];

fn build(node: &NodeView<'_>, operation: fn(Tensor, usize) -> Tensor) -> Result<Built, String> {
    let x = node.float(0)?;
    let along = axis(node.attributes.int("axis", if node.opset < 13 { 1 } else { -1 })?, x.rank())?;
    if node.opset < 13 && along + 1 != x.rank() {
        return Err(
            "before operator set 13 it is done along the last axis only; convert the model".into(),
        );
    }
    Built::one(Fact::float(x.dims.clone()), move |i, _| operation(i.take(0), along))
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
    fn gradients_match_finite_differences() {
        // Behind a node, because a softmax at the graph's end is taken off for training.
        for op in ["Softmax", "LogSoftmax"] {
            Case::new(&[2, 3, 2])
                .inner(op, &["x"], "s", vec![int("axis", 1)])
                .node("Tanh", &["s"], vec![])
                .check_gradients();
        }
    }

    #[test]
    fn an_old_operator_set_is_refused_where_it_means_something_else() {
        let text = Case::new(&[2, 3, 2]).opset(11).node("Softmax", &["x"], vec![]).refusal();
        assert!(text.contains("last axis"), "{text}");
    }
}
