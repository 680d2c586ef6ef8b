//! `Relu`, `Sigmoid`, `Tanh`, `HardSigmoid`, `HardSwish`, `Clip`.

use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::{Dispatch, Scalar};

use super::{Built, Inputs, NodeView, Operator, no_parameters};
use crate::graph::{Context, Fact, Tensor};

pub const TABLE: &[Operator] = &[
    Operator::new("Relu", 1, no_parameters, |n| each(n, |i, _| Dispatch::relu(i.take(0)))),
    Operator::new("Sigmoid", 1, no_parameters, |n| each(n, |i, _| Dispatch::sigmoid(i.take(0)))),
    Operator::new("Tanh", 1, no_parameters, |n| each(n, |i, _| Dispatch::float_tanh(i.take(0)))),
    Operator::new("HardSigmoid", 1, no_parameters, hard_sigmoid),
    Operator::new("HardSwish", 14, no_parameters, hard_swish),
    Operator::new("Clip", 6, no_parameters, clip),
];

fn each(
    node: &NodeView<'_>,
    kernel: impl Fn(&mut Inputs, &mut Context) -> Tensor + Send + Sync + 'static,
) -> Result<Built, String> {
    Built::one(Fact::float(node.float(0)?.dims.clone()), kernel)
}

fn hard(x: Tensor, alpha: f64, beta: f64) -> Tensor {
    Dispatch::hard_sigmoid(x, Scalar::Float(alpha), Scalar::Float(beta))
}

fn hard_sigmoid(node: &NodeView<'_>) -> Result<Built, String> {
    let (alpha, beta) = (node.attributes.float("alpha", 0.2)?, node.attributes.float("beta", 0.5)?);
    each(node, move |i, _| hard(i.take(0), f64::from(alpha), f64::from(beta)))
}

fn hard_swish(node: &NodeView<'_>) -> Result<Built, String> {
    each(node, |i, _| {
        let x = i.take(0);
        Dispatch::float_mul(x.clone(), hard(x, 1.0 / 6.0, 0.5))
    })
}

/// Limits are attributes up to operator set 10 and inputs after it.
fn clip(node: &NodeView<'_>) -> Result<Built, String> {
    let (min, max) = if node.opset < 11 {
        (node.attributes.float("min", f32::MIN)?, node.attributes.float("max", f32::MAX)?)
    } else {
        (node.scalar(1)?.unwrap_or(f32::MIN), node.scalar(2)?.unwrap_or(f32::MAX))
    };
    each(node, move |i, _| {
        Dispatch::float_clamp(
            i.take(0),
            Scalar::Float(f64::from(min)),
            Scalar::Float(f64::from(max)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::onnx::write::float;

    const X: [f32; 4] = [-4.0, -0.5, 0.5, 4.0];

    #[test]
    fn values_by_hand() {
        let run = |op: &str, attributes| Case::new(&[1, 4]).node(op, &["x"], attributes).run(&X);
        assert_eq!(run("Relu", vec![]), [0.0, 0.0, 0.5, 4.0]);
        near(
            &run("Sigmoid", vec![]),
            &[0.017_986_21, 0.377_540_67, 0.622_459_33, 0.982_013_8],
            1e-6,
        );
        near(&run("Tanh", vec![]), &[-0.999_329_3, -0.462_117_16, 0.462_117_16, 0.999_329_3], 1e-6);
        near(&run("HardSigmoid", vec![]), &[0.0, 0.4, 0.6, 1.0], 1e-6);
        near(
            &run("HardSigmoid", vec![float("alpha", 0.5), float("beta", 0.25)]),
            &[0.0, 0.0, 0.5, 1.0],
            1e-6,
        );
        near(&run("HardSwish", vec![]), &[0.0, -0.208_333_33, 0.291_666_67, 4.0], 1e-6);
    }

    #[test]
    fn clip_takes_limits_from_inputs_or_attributes_and_never_trains_them() {
        let case = Case::new(&[1, 4]).floats("low", &[], &[-1.0]).floats("high", &[], &[2.0]).node(
            "Clip",
            &["x", "low", "high"],
            vec![],
        );
        assert_eq!(case.run(&X), [-1.0, -0.5, 0.5, 2.0]);
        assert_eq!(case.roles(), []);
        let old = Case::new(&[1, 4]).opset(10).node("Clip", &["x"], vec![float("max", 0.0)]);
        assert_eq!(old.run(&X), [-4.0, -0.5, 0.0, 0.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in ["Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish"] {
            Case::new(&[3, 5]).node(op, &["x"], vec![]).check_gradients();
        }
        Case::new(&[3, 5])
            .floats("low", &[], &[-0.12])
            .floats("high", &[], &[0.16])
            .node("Clip", &["x", "low", "high"], vec![])
            .check_gradients();
    }
}
