//! Activations with exponentials: `Sigmoid`, `Tanh`, `Softplus`, `Softsign`, `Mish`, `Swish`,
//! `Gelu`, `Elu`, `Selu`, `Celu`.
//!
//! None overflows, and none has a gradient that is no number, for large inputs of either sign.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::{Dispatch, Scalar};

use super::activation::{each, number};
use super::{Built, NodeView, Operator, no_parameters};
use crate::graph::Tensor;

pub const TABLE: &[Operator] = &[
    Operator::new("Celu", 12, no_parameters, celu),
    Operator::new("Elu", 1, no_parameters, elu),
    Operator::new("Gelu", 20, no_parameters, gelu),
    Operator::new("Mish", 18, no_parameters, |n| each(n, |i, _| mish(i.take(0)))),
    Operator::new("Selu", 1, no_parameters, selu),
    Operator::new("Sigmoid", 1, no_parameters, |n| each(n, |i, _| Dispatch::sigmoid(i.take(0)))),
    Operator::new("Softplus", 1, no_parameters, |n| each(n, |i, _| softplus(i.take(0)))),
    Operator::new("Softsign", 1, no_parameters, |n| each(n, |i, _| softsign(i.take(0)))),
    Operator::new("Swish", 24, no_parameters, swish),
    Operator::new("Tanh", 1, no_parameters, |n| each(n, |i, _| Dispatch::float_tanh(i.take(0)))),
];

fn times(x: Tensor, factor: f64) -> Tensor {
    Dispatch::float_mul_scalar(x, Scalar::Float(factor))
}

fn plus(x: Tensor, addend: f64) -> Tensor {
    Dispatch::float_add_scalar(x, Scalar::Float(addend))
}

/// `log(1 + exp(x))`, as minus the logarithm of a sigmoid.
fn softplus(x: Tensor) -> Tensor {
    Dispatch::float_neg(Dispatch::log_sigmoid(Dispatch::float_neg(x)))
}

fn softsign(x: Tensor) -> Tensor {
    Dispatch::float_div(x.clone(), plus(Dispatch::float_abs(x), 1.0))
}

fn mish(x: Tensor) -> Tensor {
    Dispatch::float_mul(x.clone(), Dispatch::float_tanh(softplus(x)))
}

fn swish(node: &NodeView<'_>) -> Result<Built, String> {
    let alpha = f64::from(node.attributes.float("alpha", 1.0)?);
    each(node, move |i, _| {
        let x = i.take(0);
        Dispatch::float_mul(x.clone(), Dispatch::sigmoid(times(x, alpha)))
    })
}

fn gelu(node: &NodeView<'_>) -> Result<Built, String> {
    let approximate = match node.attributes.text("approximate", "none")? {
        "none" => false,
        "tanh" => true,
        other => return Err(format!("approximate '{other}' is not known")),
    };
    each(node, move |i, _| {
        let x = i.take(0);
        let half = times(x.clone(), 0.5);
        let curve = if approximate {
            let square = Dispatch::float_mul(x.clone(), x.clone());
            let bend = plus(times(square, 0.044_715), 1.0);
            Dispatch::float_tanh(times(Dispatch::float_mul(x, bend), FRAC_2_PI.sqrt()))
        } else {
            Dispatch::float_erf(times(x, FRAC_1_SQRT_2))
        };
        Dispatch::float_mul(half, plus(curve, 1.0))
    })
}

/// `x` above zero, `scale · (exp(x / width) − 1)` below.
fn exponential(x: Tensor, scale: f64, width: f64) -> Tensor {
    let below = Dispatch::float_clamp_max(x.clone(), Scalar::Float(0.0));
    let curve = plus(Dispatch::float_exp(times(below, 1.0 / width)), -1.0);
    Dispatch::float_add(Dispatch::relu(x), times(curve, scale))
}

fn elu(node: &NodeView<'_>) -> Result<Built, String> {
    let alpha = f64::from(node.attributes.float("alpha", 1.0)?);
    each(node, move |i, _| exponential(i.take(0), alpha, 1.0))
}

fn selu(node: &NodeView<'_>) -> Result<Built, String> {
    let old = node.opset < 6;
    let alpha = node.attributes.float("alpha", if old { 1.6732 } else { 1.673_263_2 })?;
    let gamma = node.attributes.float("gamma", if old { 1.0507 } else { 1.050_701 })?;
    each(node, move |i, _| {
        let curve = exponential(i.take(0), f64::from(alpha), 1.0);
        Dispatch::float_mul_scalar(curve, number(gamma))
    })
}

fn celu(node: &NodeView<'_>) -> Result<Built, String> {
    let alpha = f64::from(node.attributes.float("alpha", 1.0)?);
    if alpha <= 0.0 || alpha.is_nan() {
        return Err(format!("an alpha of {alpha} makes no sense, it has to be positive"));
    }
    each(node, move |i, _| exponential(i.take(0), alpha, alpha))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::onnx::write::float;

    fn run(op: &str, x: &[f32]) -> Vec<f32> {
        case(op, x.len()).run(x)
    }

    fn case(op: &str, size: usize) -> Case {
        let since = if op == "Swish" { 24 } else { 20 };
        Case::new(&[2, size / 2]).opset(since).node(op, &["x"], vec![])
    }

    #[test]
    fn values_by_hand() {
        near(&run("Sigmoid", &[-4.0, 0.5]), &[0.017_986_21, 0.622_459_33], 1e-6);
        near(&run("Tanh", &[-4.0, 0.5]), &[-0.999_329_3, 0.462_117_16], 1e-6);
        near(&run("Softplus", &[-1.0, 1.0]), &[0.313_261_7, 1.313_261_7], 1e-6);
        near(&run("Softsign", &[-1.0, 3.0]), &[-0.5, 0.75], 1e-6);
        near(&run("Mish", &[-1.0, 1.0]), &[-0.303_401_47, 0.865_098_36], 1e-6);
        near(&run("Swish", &[-1.0, 1.0]), &[-0.268_941_4, 0.731_058_6], 1e-6);
        near(&run("Gelu", &[-1.0, 1.0]), &[-0.158_655_25, 0.841_344_8], 1e-6);
        near(&run("Elu", &[-1.0, 2.0]), &[-0.632_120_55, 2.0], 1e-6);
        near(&run("Selu", &[-1.0, 2.0]), &[-1.111_330_7, 2.101_402], 1e-5);
        let wide = Case::new(&[1, 2]).node("Celu", &["x"], vec![float("alpha", 2.0)]);
        near(&wide.run(&[-1.0, 2.0]), &[-0.786_938_7, 2.0], 1e-6);
    }

    #[test]
    fn large_inputs_give_numbers() {
        for op in ["Softplus", "Mish", "Swish", "Gelu", "Elu", "Selu", "Celu", "Sigmoid"] {
            let got = run(op, &[-200.0, 200.0]);
            assert!(got.iter().all(|v| v.is_finite()), "{op}: {got:?}");
        }
        near(&run("Softplus", &[-200.0, 200.0]), &[0.0, 200.0], 1e-4);
    }

    #[test]
    fn gradients_of_large_inputs_are_numbers() {
        use burn::tensor::{Device, Tensor as Flat};
        let functions: [fn(super::Tensor) -> super::Tensor; 4] =
            [super::softplus, super::mish, super::softsign, |x| super::exponential(x, 1.0, 1.0)];
        for (place, function) in functions.into_iter().enumerate() {
            let device = Device::flex().autodiff();
            let x = Flat::<1>::from_floats([-200.0, 0.0, 200.0], &device).require_grad();
            let sum = Flat::<1>::from_dispatch(function(x.clone().into_dispatch())).sum();
            let gradient = x.grad(&sum.backward()).expect("a gradient").into_data();
            let gradient: Vec<f32> = gradient.iter::<f32>().collect();
            let middle = [0.5, 0.6, 1.0, 1.0][place];
            let last = if place == 2 { 0.0 } else { 1.0 };
            near(&gradient, &[0.0, middle, last], 1e-4);
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let all = ["Celu", "Elu", "Gelu", "Mish", "Selu", "Sigmoid", "Softplus", "Softsign"];
        for op in all.into_iter().chain(["Swish", "Tanh"]) {
            case(op, 30).check_gradients();
        }
    }

    #[test]
    fn a_flat_celu_is_refused() {
        let text = Case::new(&[1, 2]).node("Celu", &["x"], vec![float("alpha", 0.0)]).refusal();
        assert!(text.contains("positive"), "{text}");
    }
}
