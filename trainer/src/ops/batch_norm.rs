//! `BatchNormalization`.
//!
//! While training, the batch's own mean and variance normalise it and the running ones follow:
//! `running = momentum · running + (1 − momentum) · batch`, with the variance corrected by n/(n−1)
//! as PyTorch does (ONNX keeps the population variance in its training mode, but files come from
//! exporters whose running variance is the corrected one). In use, the running ones normalise.

use burn::backend::Dispatch;
use burn::backend::ops::ModuleOps;
use burn::tensor::Tensor as Flat;

use super::{Built, NodeView, Operator, tensor};
use crate::graph::{Fact, Mode, Observation, Role};

pub const TABLE: &[Operator] = &[Operator::new("BatchNormalization", 9, role, build)];

fn role(place: usize, _: usize) -> Role {
    match place {
        1 => Role::Scale,
        2 => Role::Bias,
        3 => Role::RunningMean,
        4 => Role::RunningVariance,
        _ => Role::Constant,
    }
}

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    node.only_output()?;
    let x = node.float(0)?;
    let epsilon = f64::from(node.attributes.float("epsilon", 1e-5)?);
    let momentum = node.attributes.float("momentum", 0.9)?;
    if node.attributes.flag("training_mode", false)? {
        return Err("it was exported in training mode; export the model for inference".into());
    }
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
    let statistics = node.parameters[3].zip(node.parameters[4]);
    Built::one(Fact::float(x.dims.clone()), move |i, context| {
        let (x, scale, bias) = (i.take(0), i.take(1), i.take(2));
        let (Mode::Train, Some((mean, variance))) = (context.mode, statistics) else {
            return Dispatch::batch_norm(x, scale, bias, i.take(3), i.take(4), epsilon);
        };
        let count = tensor::dims(&x).iter().product::<usize>() / channels;
        let result = Dispatch::batch_norm_train(x, scale, bias, epsilon);
        let correction = count as f32 / count.saturating_sub(1).max(1) as f32;
        let seen = |parameter, value| Observation { parameter, value, momentum };
        context.observed.push(seen(mean, Flat::from_dispatch(result.mean)));
        context
            .observed
            .push(seen(variance, Flat::from_dispatch(result.variance).mul_scalar(correction)));
        result.output
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::onnx::write::float;

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
    fn gradients_match_finite_differences_in_training_and_in_use() {
        let case = case(&[3, 2, 4]);
        case.check_gradients();
        case.check_training_gradients();
    }
}
