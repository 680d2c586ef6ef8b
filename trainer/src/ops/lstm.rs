//! `LSTM` (Hochreiter & Schmidhuber 1997; peepholes: Gers & Schmidhuber 2000). Gates lie in the
//! order input, output, forget, cell; peepholes in the order input, output, forget.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::recurrent::{Layer, Step, Weights, added, gate, role};
use super::{Built, NodeView, Operator};
use crate::graph::Tensor;

pub const TABLE: &[Operator] = &[Operator::new("LSTM", 7, role, build)];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    if node.attributes.flag("input_forget", false)? {
        return Err("coupled input and forget gates are not done".into());
    }
    let layer = Layer::read(node, 4, &["Sigmoid", "Tanh", "Tanh"])?;
    layer.fits(node, 6, &layer.state())?;
    layer.fits(node, 7, &[layer.directions(), 3 * layer.hidden])?;
    Built::many(layer.outputs(node.float(0)?, 2), move |i, context| layer.run(i, context, 2, cell))
}

fn cell(weights: Weights) -> Step {
    let hidden = weights.hidden;
    let peephole = |place| weights.peepholes.as_ref().map(|p| gate(p, place, hidden));
    let peepholes = [peephole(0), peephole(1), peephole(2)];
    Box::new(move |x, state| {
        let [output, cell] = state else { unreachable!("an LSTM keeps two values") };
        let again = Dispatch::float_matmul(output.clone(), weights.recurrent.clone());
        let sum = Dispatch::float_add(x, added(again, weights.bias.clone()));
        let gated = |place: usize, seen: &Tensor| {
            let hole = peepholes[place].clone().map(|p| Dispatch::float_mul(seen.clone(), p));
            weights.gating.apply(0, added(gate(&sum, place, hidden), hole))
        };
        let new = weights.gating.apply(1, gate(&sum, 3, hidden));
        let kept = Dispatch::float_mul(gated(2, cell), cell.clone());
        let cell = Dispatch::float_add(kept, Dispatch::float_mul(gated(0, cell), new));
        let shown = weights.gating.apply(2, cell.clone());
        vec![Dispatch::float_mul(gated(1, &cell), shown), cell]
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::graph::Role;
    use crate::onnx::write::{int, ints, text};

    fn case(shape: &[usize], directions: usize) -> Case {
        Case::new(shape)
            .random("w", &[directions, 12, 2])
            .random("r", &[directions, 12, 3])
            .random("b", &[directions, 24])
            .random("h", &[directions, 2, 3])
            .random("c", &[directions, 2, 3])
            .random("p", &[directions, 9])
    }

    const ALL: [&str; 8] = ["x", "w", "r", "b", "", "h", "c", "p"];

    #[test]
    fn one_step_by_hand() {
        // Gates before their activation: i = 1, o = 2, f = 3, c = 0.5; kept before: 0.25.
        let run = |which: &[&str]| {
            Case::new(&[1, 1, 1])
                .floats("w", &[1, 4, 1], &[1.0, 2.0, 3.0, 0.5])
                .floats("r", &[1, 4, 1], &[0.0; 4])
                .floats("c", &[1, 1, 1], &[0.25])
                .outputs("LSTM", &["x", "w", "r", "", "", "", "c"], which, vec![])
                .run(&[1.0])
        };
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let cell = sigmoid(3.0) * 0.25 + sigmoid(1.0) * 0.5f32.tanh();
        near(&run(&["", "", "y"]), &[cell], 1e-6);
        near(&run(&["", "y"]), &[sigmoid(2.0) * cell.tanh()], 1e-6);
    }

    #[test]
    fn gradients_match_finite_differences_for_every_input_and_output() {
        let role = [Role::Weight, Role::Weight, Role::Bias, Role::Weight];
        for which in [["y", "h1", "c1"], ["y1", "y", "c1"], ["y1", "h1", "y"]] {
            let case = case(&[4, 2, 2], 2);
            let case = case.outputs("LSTM", &ALL, &which, vec![text("direction", "bidirectional")]);
            assert_eq!(case.roles(), role);
            case.check_gradients();
        }
        case(&[3, 2, 2], 1)
            .node("LSTM", &ALL[..3], vec![text("direction", "reverse")])
            .check_gradients();
    }

    #[test]
    fn the_batch_may_come_first() {
        let x: Vec<f32> = (0..12).map(|v| v as f32 / 10.0).collect();
        let inputs = ["x", "w", "r", "b"];
        let both = || text("direction", "bidirectional");
        let first = case(&[2, 3, 2], 2).node("LSTM", &inputs, vec![both(), int("layout", 1)]);
        assert_eq!(first.output_shape(), [2, 3, 2, 3]);
        let second = case(&[2, 3, 2], 2)
            .inner("Transpose", &["x"], "t", vec![ints("perm", &[1, 0, 2])])
            .inner("LSTM", &["t", "w", "r", "b"], "u", vec![both()])
            .node("Transpose", &["u"], vec![ints("perm", &[2, 0, 1, 3])]);
        near(&first.run(&x), &second.run(&x), 1e-6);
        first.check_gradients();
    }

    #[test]
    fn what_is_not_done_is_refused() {
        let text = case(&[3, 2, 2], 1).node("LSTM", &ALL, vec![int("input_forget", 1)]).refusal();
        assert!(text.contains("coupled"), "{text}");
        let text = case(&[3, 1, 2], 1).node("LSTM", &ALL, vec![]).refusal();
        assert!(text.contains("input 5 of shape"), "{text}");
    }
}
