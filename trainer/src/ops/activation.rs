//! Activations of straight pieces: `Relu`, `LeakyRelu`, `PRelu`, `ThresholdedRelu`, `HardSigmoid`,
//! `HardSwish`, `Shrink`.

use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::BoolDType;

use super::elementwise::{self, ignore_consumed};
use super::{
    Built, Fusion, Inputs, NodeView, Operator, batch_norm, broadcast, integer, no_parameters,
    tensor,
};
use crate::graph::{Context, Role, Tensor, at_least_one};
use crate::kernels::Kernels;
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[
    Operator::new("HardSigmoid", 1, no_parameters, hard_sigmoid),
    Operator::new("HardSwish", 14, no_parameters, hard_swish),
    Operator::new("LeakyRelu", 1, no_parameters, leaky_relu),
    Operator::new("PRelu", 1, slope, prelu),
    Operator::new("Relu", 1, no_parameters, relu).fused(&[
        Fusion { first: "Add", alone: true, build: elementwise::add_rectified },
        Fusion { first: "BatchNormalization", alone: true, build: batch_norm::rectified },
    ]),
    Operator::new("Shrink", 9, no_parameters, shrink),
    Operator::new("ThresholdedRelu", 10, no_parameters, thresholded_relu),
];

fn slope(place: usize, _: usize) -> Role {
    if place == 1 { Role::Scale } else { Role::Constant }
}

/// A function of every element of a float input.
pub fn each(
    node: &NodeView<'_>,
    kernel: impl Fn(&mut Inputs, &mut Context) -> Tensor + Send + Sync + 'static,
) -> Result<Built, String> {
    ignore_consumed(node)?;
    let x = node.float(0)?;
    Built::one(x.reshaped(x.dims.clone()), kernel)
}

/// A number of the file as burn takes it.
pub fn number(value: f32) -> Scalar {
    Scalar::Float(f64::from(value))
}

fn relu(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    if x.kind() == Kind::Int {
        let out = x.reshaped(x.dims.clone());
        return Built::one(out, |i, _| integer::each(i.take(0), |v| v.max(0)));
    }
    each(node, |i, _| Dispatch::rectify(i.take(0)))
}

fn leaky_relu(node: &NodeView<'_>) -> Result<Built, String> {
    let alpha = number(node.attributes.float("alpha", 0.01)?);
    each(node, move |i, _| {
        let x = i.take(0);
        bent(x.clone(), Dispatch::float_mul_scalar(x, alpha))
    })
}

/// `x` where it is not negative, `below` elsewhere.
fn bent(x: Tensor, below: Tensor) -> Tensor {
    let negative = Dispatch::float_lower_elem(x.clone(), Scalar::Float(0.0), BoolDType::Native);
    tensor::choose(negative, below, x)
}

/// Before operator set 7 a slope has one entry for each channel, or one for all.
fn prelu(node: &NodeView<'_>) -> Result<Built, String> {
    let (x, slope) = (node.float(0)?, node.float(1)?);
    let mut dims = slope.dims.clone();
    if node.opset < 7 && slope.count() > 1 {
        dims.resize(x.rank().saturating_sub(1).max(dims.len()), 1);
    }
    if broadcast(x, &slope.reshaped(dims.clone()))? != x.dims {
        return Err(format!("a slope of shape {slope} does not fit the input of shape {x}"));
    }
    let shape = at_least_one(&dims);
    each(node, move |i, _| {
        let (x, slope) = (i.take(0), tensor::reshape(i.take(1), &shape));
        let (x, slope) = tensor::same_rank(x, slope);
        bent(x.clone(), Dispatch::float_mul(x, slope))
    })
}

fn thresholded_relu(node: &NodeView<'_>) -> Result<Built, String> {
    let alpha = number(node.attributes.float("alpha", 1.0)?);
    each(node, move |i, _| {
        let x = i.take(0);
        let below = Dispatch::float_lower_equal_elem(x.clone(), alpha, BoolDType::Native);
        Dispatch::float_mask_fill(x, below, Scalar::Float(0.0))
    })
}

fn shrink(node: &NodeView<'_>) -> Result<Built, String> {
    let (bias, lambda) =
        (node.attributes.float("bias", 0.0)?, node.attributes.float("lambd", 0.5)?);
    each(node, move |i, _| {
        let x = i.take(0);
        let zero = Dispatch::float_mul_scalar(x.clone(), Scalar::Float(0.0));
        let low = Dispatch::float_lower_elem(x.clone(), number(-lambda), BoolDType::Native);
        let high = Dispatch::float_greater_elem(x.clone(), number(lambda), BoolDType::Native);
        let raised = Dispatch::float_add_scalar(x.clone(), number(bias));
        let lowered = Dispatch::float_sub_scalar(x, number(bias));
        tensor::choose(low, raised, tensor::choose(high, lowered, zero))
    })
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::graph::Role;
    use crate::onnx::write::float;

    const X: [f32; 4] = [-4.0, -0.5, 0.5, 4.0];

    fn run(op: &str, attributes: Vec<onnx_ir::AttributeProto>) -> Vec<f32> {
        Case::new(&[1, 4]).node(op, &["x"], attributes).run(&X)
    }

    #[test]
    fn values_by_hand() {
        assert_eq!(run("Relu", vec![]), [0.0, 0.0, 0.5, 4.0]);
        near(&run("HardSigmoid", vec![]), &[0.0, 0.4, 0.6, 1.0], 1e-6);
        let bent = vec![float("alpha", 0.5), float("beta", 0.25)];
        near(&run("HardSigmoid", bent), &[0.0, 0.0, 0.5, 1.0], 1e-6);
        near(&run("HardSwish", vec![]), &[0.0, -0.208_333_33, 0.291_666_67, 4.0], 1e-6);
        near(&run("LeakyRelu", vec![]), &[-0.04, -0.005, 0.5, 4.0], 1e-6);
        assert_eq!(run("ThresholdedRelu", vec![float("alpha", 0.5)]), [0.0, 0.0, 0.0, 4.0]);
        let shrunk = vec![float("lambd", 1.0), float("bias", 1.0)];
        assert_eq!(run("Shrink", shrunk), [-3.0, 0.0, 0.0, 3.0]);
    }

    #[test]
    fn a_slope_belongs_to_a_channel_and_trains_as_a_scale() {
        let new = Case::new(&[1, 2, 2]).floats("s", &[2, 1], &[0.1, 0.2]).node(
            "PRelu",
            &["x", "s"],
            vec![],
        );
        let x = [-1.0, 1.0, -1.0, 2.0];
        near(&new.run(&x), &[-0.1, 1.0, -0.2, 2.0], 1e-6);
        assert_eq!(new.roles(), [Role::Scale]);
        new.check_gradients();
        let old = Case::new(&[1, 2, 2]).opset(6).floats("s", &[2], &[0.1, 0.2]).node(
            "PRelu",
            &["x", "s"],
            vec![],
        );
        near(&old.run(&x), &[-0.1, 1.0, -0.2, 2.0], 1e-6);
        let wide = Case::new(&[2, 1]).random("s", &[3]).node("PRelu", &["x", "s"], vec![]);
        assert!(wide.refusal().contains("does not fit"));
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in ["Relu", "HardSigmoid", "HardSwish", "LeakyRelu"] {
            Case::new(&[3, 5]).node(op, &["x"], vec![]).check_gradients();
        }
        Case::new(&[3, 5])
            .node("ThresholdedRelu", &["x"], vec![float("alpha", -5.0)])
            .check_gradients();
        Case::new(&[3, 5])
            .node("Shrink", &["x"], vec![float("lambd", 0.12), float("bias", 0.12)])
            .check_gradients();
    }
}
