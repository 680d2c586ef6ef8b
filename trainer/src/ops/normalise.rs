//! `LayerNormalization`, `RMSNormalization`, `GroupNormalization`, `InstanceNormalization`,
//! `LpNormalization`, `MeanVarianceNormalization`.
//!
//! Variances are those of the population. All is computed in 32 bits, whatever `stash_type` says.

use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::BoolDType;

use super::activation::{each, number};
use super::elementwise::ignore_consumed;
use super::{Built, NodeView, Operator, axes, axis, broadcast, no_parameters, tensor};
use crate::graph::{Fact, Role, Tensor};

pub const TABLE: &[Operator] = &[
    Operator::new("GroupNormalization", 18, role, group),
    Operator::new("InstanceNormalization", 1, role, instance),
    Operator::new("LayerNormalization", 17, role, layer),
    Operator::new("LpNormalization", 1, no_parameters, lp),
    Operator::new("MeanVarianceNormalization", 9, no_parameters, mean_variance),
    Operator::new("RMSNormalization", 23, role, rms),
];

fn role(place: usize, _: usize) -> Role {
    match place {
        1 => Role::Scale,
        2 => Role::Bias,
        _ => Role::Constant,
    }
}

fn mean(x: Tensor, axes: &[usize]) -> Tensor {
    axes.iter().fold(x, |x, axis| Dispatch::float_mean_dim(x, *axis))
}

fn square(x: Tensor) -> Tensor {
    Dispatch::float_mul(x.clone(), x)
}

/// `1 / sqrt(x + epsilon)`.
fn inverse_root(x: Tensor, epsilon: f32) -> Tensor {
    Dispatch::float_recip(Dispatch::float_sqrt(Dispatch::float_add_scalar(x, number(epsilon))))
}

/// The normalised value, the mean and the inverse deviation.
fn standardised(x: Tensor, axes: &[usize], epsilon: f32) -> (Tensor, Tensor, Tensor) {
    let middle = mean(x.clone(), axes);
    let centred = Dispatch::float_sub(x, middle.clone());
    let inverse = inverse_root(mean(square(centred.clone()), axes), epsilon);
    (Dispatch::float_mul(centred, inverse.clone()), middle, inverse)
}

fn scaled(x: Tensor, scale: Tensor, bias: Option<Tensor>) -> Tensor {
    let (x, scale) = tensor::same_rank(x, scale);
    let product = Dispatch::float_mul(x, scale);
    let Some(bias) = bias else { return product };
    let (product, bias) = tensor::same_rank(product, bias);
    Dispatch::float_add(product, bias)
}

/// The axes from attribute `axis` on.
fn trailing(node: &NodeView<'_>, x: &Fact) -> Result<Vec<usize>, String> {
    node.attributes.int("stash_type", 1)?;
    Ok((axis(node.attributes.int("axis", -1)?, x.rank())?..x.rank()).collect())
}

/// Checks that an input broadcasts to `x`.
fn fits(node: &NodeView<'_>, place: usize, x: &Fact) -> Result<(), String> {
    let factor = node.float(place)?;
    if factor.rank() > x.rank() || broadcast(x, factor)? != x.dims {
        return Err(format!("input {place} of shape {factor} does not fit {x}"));
    }
    Ok(())
}

fn layer(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let over = trailing(node, x)?;
    let epsilon = node.attributes.float("epsilon", 1e-5)?;
    fits(node, 1, x)?;
    if node.optional(2).is_some() {
        fits(node, 2, x)?;
    }
    // The usual form is one fused pass in use.
    let first_only = !node.outputs.iter().skip(1).any(|named| *named);
    let plain = |place: usize| node.optional(place).is_none_or(|f| f.dims == x.dims[over[0]..]);
    if first_only && over.len() == 1 && plain(1) && plain(2) {
        return each(node, move |i, _| {
            Dispatch::layer_norm(i.take(0), i.take(1), i.try_take(2), f64::from(epsilon))
        });
    }
    let mut statistics = x.dims.clone();
    over.iter().for_each(|a| statistics[*a] = 1);
    let statistics = Fact::float(statistics);
    let facts = vec![x.reshaped(x.dims.clone()), statistics.clone(), statistics];
    Built::many(facts, move |i, _| {
        let (x, middle, inverse) = standardised(i.take(0), &over, epsilon);
        vec![scaled(x, i.take(1), i.try_take(2)), middle, inverse]
    })
}

fn rms(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let over = trailing(node, x)?;
    let epsilon = node.attributes.float("epsilon", 1e-5)?;
    fits(node, 1, x)?;
    each(node, move |i, _| {
        let x = i.take(0);
        let inverse = inverse_root(mean(square(x.clone()), &over), epsilon);
        scaled(Dispatch::float_mul(x, inverse), i.take(1), None)
    })
}

/// Checks that inputs 1 and 2 have `entries` entries each.
fn entries(node: &NodeView<'_>, entries: usize) -> Result<(), String> {
    for place in 1..3 {
        let factor = node.float(place)?;
        if factor.dims != [entries] {
            return Err(format!("input {place} of shape {factor} does not have {entries} entries"));
        }
    }
    Ok(())
}

fn instance(node: &NodeView<'_>) -> Result<Built, String> {
    ignore_consumed(node)?;
    let x = node.float(0)?;
    if x.rank() < 2 {
        return Err(format!("input of shape {x} has no channels"));
    }
    entries(node, x.dims[1])?;
    in_groups(node, x, x.dims[1], x.dims[1])
}

/// Scale and bias have an entry for each group before operator set 21, for each channel after it.
fn group(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    if x.rank() < 2 {
        return Err(format!("input of shape {x} has no channels"));
    }
    if node.opset >= 21 {
        node.attributes.int("stash_type", 1)?;
    }
    let channels = x.dims[1];
    let groups = usize::try_from(node.attributes.int("num_groups", 0)?).unwrap_or(0);
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(format!("num_groups does not divide the {channels} channels"));
    }
    let scales = if node.opset < 21 { groups } else { channels };
    entries(node, scales)?;
    in_groups(node, x, groups, scales)
}

/// Normalises every group of channels; a scale is for so many parts of the channels.
fn in_groups(node: &NodeView<'_>, x: &Fact, groups: usize, scales: usize) -> Result<Built, String> {
    let epsilon = node.attributes.float("epsilon", 1e-5)?;
    let shape = x.dims.clone();
    let samples = shape[0];
    let each_sample: usize = shape[1..].iter().product();
    Built::one(x.reshaped(shape.clone()), move |i, _| {
        let x = tensor::reshape(i.take(0), &[samples, groups, each_sample / groups]);
        let (x, ..) = standardised(x, &[2], epsilon);
        let x = tensor::reshape(x, &[samples, scales, each_sample / scales]);
        let column = |factor| tensor::reshape(factor, &[1, scales, 1]);
        tensor::reshape(scaled(x, column(i.take(1)), Some(column(i.take(2)))), &shape)
    })
}

/// Where the length is zero the result is zero.
fn lp(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let along = axis(node.attributes.int("axis", -1)?, x.rank())?;
    let p = node.attributes.int("p", 2)?;
    if !matches!(p, 1 | 2) {
        return Err(format!("p is {p}, 1 and 2 are known"));
    }
    each(node, move |i, _| {
        let x = i.take(0);
        let parts = if p == 1 { Dispatch::float_abs(x.clone()) } else { square(x.clone()) };
        let sum = Dispatch::float_sum_dim(parts, along);
        let zero = Dispatch::float_equal_elem(sum.clone(), Scalar::Float(0.0), BoolDType::Native);
        let sum = Dispatch::float_mask_fill(sum, zero, Scalar::Float(1.0));
        Dispatch::float_div(x, if p == 1 { sum } else { Dispatch::float_sqrt(sum) })
    })
}

fn mean_variance(node: &NodeView<'_>) -> Result<Built, String> {
    /// Added to the deviation, as the operator's definition does.
    const LEAST: f64 = 1e-9;
    let x = node.float(0)?;
    let over = axes(node.attributes.ints("axes")?.unwrap_or(&[0, 2, 3]), x.rank())?;
    each(node, move |i, _| {
        let x = i.take(0);
        let centred = Dispatch::float_sub(x.clone(), mean(x, &over));
        let deviation = super::reduce::root(mean(square(centred.clone()), &over));
        Dispatch::float_div(centred, Dispatch::float_add_scalar(deviation, Scalar::Float(LEAST)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use crate::graph::Role;
    use crate::onnx::write::{float, int, ints};

    fn factors(shape: &[usize], count: usize) -> Case {
        Case::new(shape).random("scale", &[count]).random("bias", &[count])
    }

    #[test]
    fn a_layer_by_hand_whose_factors_train() {
        let case = Case::new(&[1, 2])
            .floats("s", &[2], &[2.0, 1.0])
            .floats("b", &[2], &[1.0, 0.0])
            .node("LayerNormalization", &["x", "s", "b"], vec![float("epsilon", 0.0)]);
        near(&case.run(&[1.0, 5.0]), &[-1.0, 1.0], 1e-6);
        assert_eq!(case.roles(), [Role::Scale, Role::Bias]);
    }

    #[test]
    fn groups_and_instances_by_hand() {
        let x = [1.0, 3.0, 5.0, 7.0];
        let exact = || float("epsilon", 0.0);
        let instances = Case::new(&[1, 2, 2])
            .floats("s", &[2], &[1.0, 2.0])
            .floats("b", &[2], &[0.0, 10.0])
            .node("InstanceNormalization", &["x", "s", "b"], vec![exact()]);
        near(&instances.run(&x), &[-1.0, 1.0, 8.0, 12.0], 1e-5);
        let one = Case::new(&[1, 2, 2])
            .opset(21)
            .floats("s", &[2], &[1.0, 2.0])
            .floats("b", &[2], &[0.0, 10.0])
            .node("GroupNormalization", &["x", "s", "b"], vec![exact(), int("num_groups", 1)]);
        let unit = 5f32.sqrt().recip();
        near(&one.run(&x), &[-3.0 * unit, -unit, 10.0 + 2.0 * unit, 10.0 + 6.0 * unit], 1e-5);
    }

    #[test]
    fn a_length_of_zero_gives_zero() {
        for p in [1, 2] {
            let case = Case::new(&[2, 2]).node("LpNormalization", &["x"], vec![int("p", p)]);
            let unit = if p == 1 { 0.5 } else { 0.5f32.sqrt() };
            near(&case.run(&[0.0, 0.0, 3.0, -3.0]), &[0.0, 0.0, unit, -unit], 1e-6);
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let inputs = ["x", "scale", "bias"];
        factors(&[3, 4], 4).node("LayerNormalization", &inputs, vec![]).check_gradients();
        Case::new(&[2, 2, 3])
            .random("s", &[2, 3])
            .node("LayerNormalization", &["x", "s"], vec![int("axis", 1)])
            .check_gradients();
        factors(&[2, 3, 4], 3).node("InstanceNormalization", &inputs, vec![]).check_gradients();
        for (opset, count) in [(18, 2), (21, 4)] {
            factors(&[2, 4, 3], count)
                .opset(opset)
                .node("GroupNormalization", &inputs, vec![int("num_groups", 2)])
                .check_gradients();
        }
        Case::new(&[3, 4])
            .opset(23)
            .random("scale", &[4])
            .node("RMSNormalization", &["x", "scale"], vec![])
            .check_gradients();
        for p in [1, 2] {
            Case::new(&[2, 4]).node("LpNormalization", &["x"], vec![int("p", p)]).check_gradients();
        }
        Case::new(&[2, 2, 3])
            .node("MeanVarianceNormalization", &["x"], vec![ints("axes", &[0, 2])])
            .check_gradients();
    }

    #[test]
    fn groups_that_do_not_divide_the_channels_are_refused() {
        for groups in [0, 3, -2] {
            let text = factors(&[1, 4, 2], 4)
                .opset(21)
                .node(
                    "GroupNormalization",
                    &["x", "scale", "bias"],
                    vec![int("num_groups", groups)],
                )
                .refusal();
            assert!(text.contains("does not divide"), "{text}");
        }
    }
}
