//! `Clip`. Its limits are attributes up to operator set 10 and inputs after it; each may be left
//! out. Where the lower limit is above the upper one, the upper one holds. Limits never train.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::activation::{each, number};
use super::variadic::{larger, smaller};
use super::{Built, NodeView, Operator, no_parameters, tensor};
use crate::graph::{Fact, Tensor};
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[Operator::new("Clip", 1, no_parameters, build)];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    if node.opset < 11 {
        let limits =
            (node.attributes.optional_float("min")?, node.attributes.optional_float("max")?);
        return fixed(node, limits.0, limits.1);
    }
    let x = node.input(0)?;
    if x.kind() == Kind::Bool {
        return Err("truth values have no order".into());
    }
    for place in 1..3 {
        if let Some(limit) = node.optional(place)
            && (limit.kind() != x.kind() || limit.count() != 1)
        {
            return Err(format!("input {place} of shape {limit} is not one limit of its type"));
        }
    }
    let known = |place| node.optional(place).is_none_or(|limit| limit.floats().is_some());
    if x.kind() == Kind::Float && known(1) && known(2) {
        return fixed(node, node.scalar(1)?, node.scalar(2)?);
    }
    let rank = x.rank().max(1);
    Built::one(Fact::runtime(x.element, x.dims.clone()), move |i, _| {
        let (x, low, high) = (i.take(0), i.try_take(1), i.try_take(2));
        let shape = tensor::dims(&x);
        let spread = |limit: Tensor| {
            let limit = tensor::reshape(limit, &vec![1; rank]);
            tensor::expand(limit, &shape)
        };
        let x = if let Some(low) = low { larger(x, spread(low)) } else { x };
        if let Some(high) = high { smaller(x, spread(high)) } else { x }
    })
}

fn fixed(node: &NodeView<'_>, low: Option<f32>, high: Option<f32>) -> Result<Built, String> {
    each(node, move |i, _| {
        let x = i.take(0);
        let x = if let Some(low) = low { Dispatch::float_clamp_min(x, number(low)) } else { x };
        if let Some(high) = high { Dispatch::float_clamp_max(x, number(high)) } else { x }
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::onnx::write::float;

    const X: [f32; 4] = [-4.0, -0.5, 0.5, 4.0];

    fn case(low: f32, high: f32) -> Case {
        Case::new(&[1, 4]).floats("low", &[], &[low]).floats("high", &[], &[high])
    }

    #[test]
    fn limits_are_inputs_or_attributes_and_never_train() {
        let new = case(-1.0, 2.0).node("Clip", &["x", "low", "high"], vec![]);
        assert_eq!(new.run(&X), [-1.0, -0.5, 0.5, 2.0]);
        assert_eq!(new.roles(), []);
        let old = Case::new(&[1, 4]).opset(10).node("Clip", &["x"], vec![float("max", 0.0)]);
        assert_eq!(old.run(&X), [-4.0, -0.5, 0.0, 0.0]);
        let upper = case(-1.0, 2.0).node("Clip", &["x", "", "high"], vec![]);
        assert_eq!(upper.run(&X), [-4.0, -0.5, 0.5, 2.0]);
        assert_eq!(case(0.0, 0.0).node("Clip", &["x"], vec![]).run(&X), X);
    }

    #[test]
    fn the_upper_limit_holds_where_they_cross() {
        let crossed = case(2.0, 1.0).node("Clip", &["x", "low", "high"], vec![]);
        assert_eq!(crossed.run(&X), [1.0; 4]);
    }

    #[test]
    fn limits_may_come_from_the_graph() {
        let case = case(-1.0, 2.0)
            .inner("ReduceMax", &["x"], "top", vec![crate::onnx::write::int("keepdims", 0)])
            .inner("Mul", &["top", "half"], "limit", vec![])
            .floats("half", &[], &[0.5])
            .node("Clip", &["x", "low", "limit"], vec![]);
        assert_eq!(case.run(&X), [-1.0, -0.5, 0.5, 2.0]);
        case.check_gradients();
    }

    #[test]
    fn integers_are_limited_too() {
        let case = Case::new(&[1])
            .ints("a", &[-5, 3, 9])
            .ints("low", &[0])
            .ints("high", &[4])
            .node("Clip", &["a", "low", "high"], vec![]);
        assert_eq!(case.run(&[0.0]), [0.0, 3.0, 4.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        case(-0.05, 0.05).node("Clip", &["x", "low", "high"], vec![]).check_gradients();
    }
}
