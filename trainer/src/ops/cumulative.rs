//! `CumSum` and `CumProd` along an axis known at load, forwards or backwards, each element with or
//! without (`exclusive`) itself.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Device;

use super::{Built, NodeView, Operator, axis, integer, no_parameters, tensor};
use crate::graph::Tensor;
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[
    Operator::new("CumProd", 26, no_parameters, |n| build(n, PRODUCT)),
    Operator::new("CumSum", 11, no_parameters, |n| build(n, SUM)),
];

const SUM: Running = Running { start: 0, floats: Dispatch::float_cumsum, ints: i64::wrapping_add };
const PRODUCT: Running =
    Running { start: 1, floats: Dispatch::float_cumprod, ints: i64::wrapping_mul };

/// What runs along the axis.
#[derive(Clone, Copy)]
struct Running {
    /// What nothing gives.
    start: u8,
    floats: fn(Tensor, usize) -> Tensor,
    ints: fn(i64, i64) -> i64,
}

impl Running {
    fn of_ints(self, x: Tensor, along: usize) -> Tensor {
        let shape = tensor::dims(&x);
        let inner: usize = shape[along + 1..].iter().product();
        let (mut values, device) = integer::download(x);
        for block in values.chunks_mut(shape[along] * inner) {
            for place in inner..block.len() {
                block[place] = (self.ints)(block[place - inner], block[place]);
            }
        }
        tensor::ints_from_host(values, &shape, &device)
    }

    /// One entry along the axis that holds the start.
    fn first(self, x: &Tensor, along: usize, device: &Device) -> Tensor {
        let mut shape = tensor::dims(x);
        shape[along] = 1;
        let ones = vec![1; shape.len()];
        let single = match tensor::kind(x) {
            Kind::Float => tensor::from_host(vec![f32::from(self.start)], &ones, device),
            _ => tensor::ints_from_host(vec![i64::from(self.start)], &ones, device),
        };
        tensor::expand(single, &shape)
    }
}

fn build(node: &NodeView<'_>, running: Running) -> Result<Built, String> {
    let x = node.input(0)?;
    if x.kind() == Kind::Bool {
        return Err("truth values have no sum".into());
    }
    let along = match node.ints(1)? {
        [along] => axis(*along, x.rank())?,
        other => return Err(format!("the axis is {other:?}, one number is needed")),
    };
    let exclusive = node.attributes.flag("exclusive", false)?;
    let reverse = node.attributes.flag("reverse", false)?;
    let (element, size) = (x.element, x.dims[along]);
    Built::one(x.reshaped(x.dims.clone()), move |i, context| {
        let turned = |x| if reverse { tensor::flip(x, &[along]) } else { x };
        let mut x = turned(i.take(0));
        if exclusive {
            let first = running.first(&x, along, &context.device);
            x = match size {
                1 => first,
                _ => tensor::concat(vec![first, tensor::narrow(x, along, 0, size - 1)], along),
            };
        }
        let result = match element.kind() {
            Kind::Float => (running.floats)(x, along),
            _ => integer::wrapped(running.of_ints(x, along), element),
        };
        turned(result)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::onnx::write::int;

    fn case(op: &str, exclusive: i64, reverse: i64) -> Case {
        let since = if op == "CumSum" { 14 } else { 26 };
        Case::new(&[2, 3]).opset(since).ints("axis", &[1]).node(
            op,
            &["x", "axis"],
            vec![int("exclusive", exclusive), int("reverse", reverse)],
        )
    }

    #[test]
    fn values_by_hand_in_every_direction() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let run = |op: &str, exclusive, reverse| case(op, exclusive, reverse).run(&x);
        assert_eq!(run("CumSum", 0, 0), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
        assert_eq!(run("CumSum", 1, 0), [0.0, 1.0, 3.0, 0.0, 4.0, 9.0]);
        assert_eq!(run("CumSum", 0, 1), [6.0, 5.0, 3.0, 15.0, 11.0, 6.0]);
        assert_eq!(run("CumSum", 1, 1), [5.0, 3.0, 0.0, 11.0, 6.0, 0.0]);
        assert_eq!(run("CumProd", 0, 0), [1.0, 2.0, 6.0, 4.0, 20.0, 120.0]);
        assert_eq!(run("CumProd", 1, 1), [6.0, 3.0, 1.0, 30.0, 6.0, 1.0]);
    }

    #[test]
    fn integers_wrap() {
        let case = Case::new(&[1]).ints("a", &[i64::MAX, 1, 1]).ints("axis", &[0]).node(
            "CumSum",
            &["a", "axis"],
            vec![],
        );
        assert_eq!(case.run(&[0.0]), [i64::MAX as f32, i64::MIN as f32, i64::MIN as f32]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in ["CumSum", "CumProd"] {
            for (exclusive, reverse) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                case(op, exclusive, reverse).check_gradients();
            }
        }
    }

    #[test]
    fn an_axis_that_does_not_exist_is_refused() {
        let case = Case::new(&[2, 3]).ints("axis", &[2]).node("CumSum", &["x", "axis"], vec![]);
        assert!(case.refusal().contains("does not exist"));
    }
}
