//! `GRU` (Cho et al. 2014). Gates lie in the order update, reset, hidden.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::recurrent::{Layer, Step, Weights, added, gate, role};
use super::{Built, NodeView, Operator, tensor};
use crate::graph::Tensor;

pub const TABLE: &[Operator] = &[Operator::new("GRU", 7, role, build)];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let reset_after = node.attributes.flag("linear_before_reset", false)?;
    let layer = Layer::read(node, 3, &["Sigmoid", "Tanh"])?;
    let cell = if reset_after { reset_after_product } else { reset_before_product };
    Built::many(layer.outputs(node.float(0)?, 1), move |i, context| layer.run(i, context, 1, cell))
}

/// `update · old + (1 − update) · new`.
fn mixed(update: Tensor, old: Tensor, new: Tensor) -> Tensor {
    let difference = Dispatch::float_sub(old, new.clone());
    Dispatch::float_add(new, Dispatch::float_mul(update, difference))
}

/// The reset gate scales the old output after it went through its weights.
fn reset_after_product(weights: Weights) -> Step {
    let hidden = weights.hidden;
    Box::new(move |x, state| {
        let old = state[0].clone();
        let again = Dispatch::float_matmul(old.clone(), weights.recurrent.clone());
        let again = added(again, weights.bias.clone());
        let both =
            |place| Dispatch::float_add(gate(&x, place, hidden), gate(&again, place, hidden));
        let update = weights.gating.apply(0, both(0));
        let reset = weights.gating.apply(0, both(1));
        let scaled = Dispatch::float_mul(reset, gate(&again, 2, hidden));
        let new = Dispatch::float_add(gate(&x, 2, hidden), scaled);
        vec![mixed(update, old, weights.gating.apply(1, new))]
    })
}

/// The reset gate scales the old output before it goes through its weights.
fn reset_before_product(weights: Weights) -> Step {
    let hidden = weights.hidden;
    let cut = |x: &Tensor, from, to| tensor::narrow(x.clone(), 1, from * hidden, to * hidden);
    let gates = cut(&weights.recurrent, 0, 2);
    let inner = cut(&weights.recurrent, 2, 3);
    let gates_bias = weights.bias.as_ref().map(|b| cut(b, 0, 2));
    let inner_bias = weights.bias.as_ref().map(|b| cut(b, 2, 3));
    Box::new(move |x, state| {
        let old = state[0].clone();
        let again = Dispatch::float_matmul(old.clone(), gates.clone());
        let again = added(again, gates_bias.clone());
        let both =
            |place| Dispatch::float_add(gate(&x, place, hidden), gate(&again, place, hidden));
        let update = weights.gating.apply(0, both(0));
        let reset = weights.gating.apply(0, both(1));
        let scaled = Dispatch::float_matmul(Dispatch::float_mul(reset, old.clone()), inner.clone());
        let new = Dispatch::float_add(gate(&x, 2, hidden), added(scaled, inner_bias.clone()));
        vec![mixed(update, old, weights.gating.apply(1, new))]
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::graph::Role;
    use crate::onnx::write::{int, text};

    #[test]
    fn one_step_by_hand_with_the_reset_before_and_after() {
        // Gates before their activation: z = 1, r = 2, and 0.5 for what is new; kept before: 4.
        let run = |after| {
            Case::new(&[1, 1, 1])
                .floats("w", &[1, 3, 1], &[1.0, 2.0, 0.5])
                .floats("r", &[1, 3, 1], &[0.0, 0.0, 0.25])
                .floats("b", &[1, 6], &[0.0, 0.0, 0.0, 0.0, 0.0, -0.5])
                .floats("h", &[1, 1, 1], &[4.0])
                .node(
                    "GRU",
                    &["x", "w", "r", "b", "", "h"],
                    vec![int("linear_before_reset", after)],
                )
                .run(&[1.0])
        };
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let mixed = |new: f32| (1.0 - sigmoid(1.0)) * new.tanh() + sigmoid(1.0) * 4.0;
        near(&run(0), &[mixed(0.5 + sigmoid(2.0) * 4.0 * 0.25 - 0.5)], 1e-6);
        near(&run(1), &[mixed(0.5 + sigmoid(2.0) * (4.0 * 0.25 - 0.5))], 1e-6);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for after in [0, 1] {
            for which in [["y", "h1"], ["y1", "y"]] {
                let case = Case::new(&[4, 2, 2])
                    .random("w", &[2, 9, 2])
                    .random("r", &[2, 9, 3])
                    .random("b", &[2, 18])
                    .random("h", &[2, 2, 3])
                    .outputs(
                        "GRU",
                        &["x", "w", "r", "b", "", "h"],
                        &which,
                        vec![text("direction", "bidirectional"), int("linear_before_reset", after)],
                    );
                assert_eq!(case.roles(), [Role::Weight, Role::Weight, Role::Bias]);
                case.check_gradients();
            }
        }
    }
}
