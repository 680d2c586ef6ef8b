//! `RNN` (Elman 1990): one gate, whose output is what is kept.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::recurrent::{Layer, added, role};
use super::{Built, NodeView, Operator};

pub const TABLE: &[Operator] = &[Operator::new("RNN", 7, role, build)];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let layer = Layer::read(node, 1, &["Tanh"])?;
    Built::many(layer.outputs(node.float(0)?, 1), move |i, context| {
        layer.run(i, context, 1, |weights| {
            Box::new(move |x, state| {
                let again = Dispatch::float_matmul(state[0].clone(), weights.recurrent.clone());
                let sum = Dispatch::float_add(x, added(again, weights.bias.clone()));
                vec![weights.gating.apply(0, sum)]
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::graph::Role;
    use crate::onnx::write::{float, floats, int, text, texts};

    #[test]
    fn two_steps_by_hand_in_both_directions() {
        let run = |direction: &str| {
            Case::new(&[2, 1, 1])
                .floats("w", &[1, 1, 1], &[2.0])
                .floats("r", &[1, 1, 1], &[10.0])
                .floats("b", &[1, 2], &[0.25, 0.25])
                .outputs(
                    "RNN",
                    &["x", "w", "r", "b"],
                    &["y"],
                    vec![text("direction", direction), texts("activations", &["Relu"])],
                )
                .run(&[1.0, 3.0])
        };
        assert_eq!(run("forward"), [2.5, 31.5]);
        assert_eq!(run("reverse"), [67.5, 6.5]);
    }

    #[test]
    fn scaling_values_and_the_clip_are_honoured() {
        let case = Case::new(&[1, 1, 1])
            .floats("w", &[1, 1, 1], &[1.0])
            .floats("r", &[1, 1, 1], &[1.0])
            .node(
                "RNN",
                &["x", "w", "r"],
                vec![
                    texts("activations", &["Affine"]),
                    floats("activation_alpha", &[3.0]),
                    floats("activation_beta", &[0.5]),
                    float("clip", 2.0),
                ],
            );
        near(&case.run(&[1.0]), &[3.5], 1e-6);
        near(&case.run(&[-9.0]), &[-5.5], 1e-6);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for activation in ["Tanh", "HardSigmoid", "LeakyRelu", "Softsign", "ScaledTanh"] {
            let case = Case::new(&[3, 2, 2])
                .random("w", &[2, 3, 2])
                .random("r", &[2, 3, 3])
                .random("b", &[2, 6])
                .random("h", &[2, 2, 3])
                .node(
                    "RNN",
                    &["x", "w", "r", "b", "", "h"],
                    vec![
                        text("direction", "bidirectional"),
                        texts("activations", &[activation; 2]),
                    ],
                );
            assert_eq!(case.roles(), [Role::Weight, Role::Weight, Role::Bias]);
            case.check_gradients();
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refusal = |inputs: &[&str], attributes| {
            Case::new(&[3, 2, 2])
                .random("w", &[1, 3, 2])
                .random("r", &[1, 3, 3])
                .random("b", &[1, 5])
                .ints("l", &[3, 2])
                .node("RNN", inputs, attributes)
                .refusal()
        };
        let text = refusal(&["x", "w", "r"], vec![int("hidden_size", 4)]);
        assert!(text.contains("do not fit together"), "{text}");
        let text = refusal(&["x", "w", "r", "b"], vec![]);
        assert!(text.contains("input 3 of shape [1, 5] is not of shape [1, 6]"), "{text}");
        let text = refusal(&["x", "w", "r", "", "l"], vec![]);
        assert!(text.contains("several lengths"), "{text}");
        let text = refusal(&["x", "w", "r"], vec![texts("activations", &["Swish"])]);
        assert!(text.contains("'Swish' is not known"), "{text}");
    }
}
