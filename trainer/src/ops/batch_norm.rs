//! `BatchNormalization`.
//!
//! While training, the batch's own mean and variance normalise it and the running ones follow:
//! `running = momentum · running + (1 − momentum) · batch`, with the variance corrected by n/(n−1)
//! as PyTorch does (ONNX keeps the population variance in its training mode, but files come from
//! exporters whose running variance is the corrected one). In use, the running ones normalise.
//!
//! A node in `training_mode` normalises by the batch in use too; its further outputs are the running
//! values as ONNX defines them.

use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::Tensor as Flat;

use super::elementwise::ignore_consumed;
use super::{Built, NodeView, Operator, tensor};
use crate::graph::{Context, Mode, Observation, Role, Tensor};
use crate::kernels::Kernels;

pub const TABLE: &[Operator] = &[Operator::new("BatchNormalization", 1, role, build)];

fn role(place: usize, _: usize) -> Role {
    match place {
        1 => Role::Scale,
        2 => Role::Bias,
        3 => Role::RunningMean,
        4 => Role::RunningVariance,
        _ => Role::Constant,
    }
}

/// What a node says beside its inputs.
struct Settings {
    epsilon: f64,
    momentum: f32,
    /// Whether the batch normalises in use too.
    training_mode: bool,
}

impl Settings {
    fn read(node: &NodeView<'_>) -> Result<Self, String> {
        ignore_consumed(node)?;
        let epsilon = f64::from(node.attributes.float("epsilon", 1e-5)?);
        let momentum = node.attributes.float("momentum", 0.9)?;
        if node.opset < 9 && !node.attributes.flag("spatial", true)? {
            return Err("statistics for every place (spatial = 0) are not done".into());
        }
        if node.opset < 7 && !node.attributes.flag("is_test", false)? {
            return Err("it was exported in training mode; export the model for inference".into());
        }
        let training_mode = node.opset >= 14 && node.attributes.flag("training_mode", false)?;
        Ok(Self { epsilon, momentum, training_mode })
    }
}

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let settings = Settings::read(node)?;
    let channels = channels(node)?;
    if !settings.training_mode {
        node.only_output()?;
        return step(node, settings, channels, false);
    }
    let x = node.float(0)?;
    let out = x.reshaped(x.dims.clone());
    let running = |place: usize| node.float(place).map(|f| f.reshaped(f.dims.clone()));
    let statistics = node.parameters[3].zip(node.parameters[4]);
    Built::many(vec![out, running(3)?, running(4)?], move |i, context| {
        let follows = statistics.filter(|_| context.mode == Mode::Train);
        let inputs = [i.take(0), i.take(1), i.take(2)];
        let batch = by_batch(inputs, channels, &settings, false, follows, context);
        let mean = followed(i.take(3), batch.mean, settings.momentum);
        let variance = followed(i.take(4), batch.variance, settings.momentum);
        vec![batch.output, mean, variance]
    })
}

/// A node and the `Relu` behind it.
pub fn rectified(node: &NodeView<'_>, relu: &NodeView<'_>) -> Result<Option<Built>, String> {
    let settings = Settings::read(node)?;
    if settings.training_mode {
        return Ok(None);
    }
    ignore_consumed(relu)?;
    step(node, settings, channels(node)?, true).map(Some)
}

/// The number of channels, for which every other input has one entry.
fn channels(node: &NodeView<'_>) -> Result<usize, String> {
    let x = node.float(0)?;
    if x.rank() < 2 {
        return Err(format!("input of shape {x} has no channels"));
    }
    let channels = x.dims[1];
    for place in 1..5 {
        if node.float(place)?.dims != [channels] {
            return Err(format!(
                "input {place} does not have one entry for each of the {channels} channels"
            ));
        }
    }
    Ok(channels)
}

/// Normalised by the batch in training if the running values follow, by them otherwise.
fn step(
    node: &NodeView<'_>,
    settings: Settings,
    channels: usize,
    rectified: bool,
) -> Result<Built, String> {
    let x = node.float(0)?;
    let statistics = node.parameters[3].zip(node.parameters[4]);
    Built::one(x.reshaped(x.dims.clone()), move |i, context| {
        let [x, scale, bias] = [i.take(0), i.take(1), i.take(2)];
        if context.mode == Mode::Train && statistics.is_some() {
            let inputs = [x, scale, bias];
            return by_batch(inputs, channels, &settings, rectified, statistics, context).output;
        }
        let (mean, variance) = (i.take(3), i.take(4));
        let output = Dispatch::batch_norm(x, scale, bias, mean, variance, settings.epsilon);
        if rectified { Dispatch::rectify(output) } else { output }
    })
}

/// A batch normalised by itself.
struct Batch {
    output: Tensor,
    mean: Tensor,
    variance: Tensor,
}

/// Normalises by the batch; the running values that are parameters will follow.
fn by_batch(
    [x, scale, bias]: [Tensor; 3],
    channels: usize,
    settings: &Settings,
    rectified: bool,
    follow: Option<(usize, usize)>,
    context: &mut Context,
) -> Batch {
    let count = tensor::dims(&x).iter().product::<usize>() / channels;
    let (output, mean, variance) = Dispatch::normalise(x, scale, bias, settings.epsilon, rectified);
    if let Some(follow) = follow {
        let correction = count as f32 / count.saturating_sub(1).max(1) as f32;
        let momentum = settings.momentum;
        let seen = |parameter, value| Observation { parameter, value, momentum };
        context.observed.push(seen(follow.0, Flat::from_dispatch(mean.clone())));
        let corrected = Flat::from_dispatch(variance.clone()).mul_scalar(correction);
        context.observed.push(seen(follow.1, corrected));
    }
    Batch { output, mean, variance }
}

fn followed(running: Tensor, batch: Tensor, momentum: f32) -> Tensor {
    let part = |x, share: f32| Dispatch::float_mul_scalar(x, Scalar::Float(f64::from(share)));
    Dispatch::float_add(part(running, momentum), part(batch, 1.0 - momentum))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::onnx::write::{float, int};

    fn case(shape: &[usize]) -> Case {
        Case::new(shape)
            .floats("scale", &[2], &[2.0, 1.0])
            .floats("bias", &[2], &[1.0, 0.0])
            .floats("mean", &[2], &[1.0, -1.0])
            .floats("var", &[2], &[4.0, 0.25])
            .node(
                "BatchNormalization",
                &["x", "scale", "bias", "mean", "var"],
                vec![float("epsilon", 0.0), float("momentum", 0.75)],
            )
    }

    #[test]
    fn use_normalises_by_the_running_statistics() {
        near(&case(&[1, 2]).run(&[3.0, 0.0]), &[3.0, 2.0], 1e-6);
    }

    #[test]
    fn training_normalises_by_the_batch_and_the_running_ones_follow() {
        let case = case(&[2, 2]);
        let (out, values) = case.train(&[1.0, 5.0, 3.0, 9.0]);
        near(&out, &[-1.0, -1.0, 3.0, 1.0], 1e-5);
        // batch means 2 and 7; corrected variances 2 and 8
        near(&values["mean"], &[0.75 + 0.25 * 2.0, -0.75 + 0.25 * 7.0], 1e-5);
        near(&values["var"], &[3.0 + 0.25 * 2.0, 0.75 * 0.25 + 0.25 * 8.0], 1e-5);
    }

    #[test]
    fn a_node_in_training_mode_normalises_by_the_batch_in_use() {
        let case =
            Case::new(&[2, 1]).floats("one", &[1], &[1.0]).floats("zero", &[1], &[0.0]).node(
                "BatchNormalization",
                &["x", "one", "zero", "zero", "one"],
                vec![float("epsilon", 0.0), int("training_mode", 1)],
            );
        near(&case.run(&[1.0, 5.0]), &[-1.0, 1.0], 1e-5);
    }

    #[test]
    fn an_old_node_in_training_mode_is_refused() {
        let text = Case::new(&[2, 1])
            .opset(6)
            .random("w", &[1])
            .node("BatchNormalization", &["x", "w", "w", "w", "w"], vec![])
            .refusal();
        assert!(text.contains("training mode"), "{text}");
    }

    #[test]
    fn gradients_match_finite_differences_in_training_and_in_use() {
        let case = case(&[3, 2, 4]);
        case.check_gradients();
        case.check_training_gradients();
    }

    /// The case with a ReLU behind the normalisation, and what else reads it.
    fn rectified(also: &str) -> Case {
        let case = Case::new(&[3, 2, 4])
            .floats("scale", &[2], &[2.0, -1.0])
            .floats("bias", &[2], &[0.3, 0.1])
            .floats("mean", &[2], &[0.1, -0.1])
            .floats("var", &[2], &[0.5, 0.25]);
        let inputs = ["x", "scale", "bias", "mean", "var"];
        let case = case.inner("BatchNormalization", &inputs, "n", vec![float("momentum", 0.75)]);
        case.inner("Relu", &["n"], "r", vec![]).node("Add", &["r", also], vec![])
    }

    #[test]
    fn the_relu_behind_it_changes_neither_values_nor_gradients() {
        for case in [rectified("x"), rectified("n")] {
            case.check_gradients();
            case.check_training_gradients();
        }
        let x: Vec<f32> = (0..24).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
        let (with, alone) = (rectified("n").train(&x), rectified("x").train(&x));
        assert_eq!(with.1["mean"], alone.1["mean"], "the running mean follows once");
        for (with, alone) in with.0.iter().zip(alone.0.iter().zip(&x).map(|(y, x)| y - x)) {
            // r + n is 2n where n is positive and n elsewhere; r alone is n or zero.
            let n = with - alone;
            assert!((alone - n.max(0.0)).abs() < 1e-5, "{with} {alone}");
        }
    }

    #[test]
    fn what_is_no_number_stays_none_behind_a_relu() {
        let mut x = vec![0.5; 24];
        x[0] = f32::NAN;
        assert!(rectified("x").train(&x).0.iter().any(|y| y.is_nan()));
        assert!(rectified("x").run(&x)[0].is_nan());
    }
}
