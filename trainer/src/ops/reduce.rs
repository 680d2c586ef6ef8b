//! `ReduceMean`. Its axes are an attribute up to operator set 17 and an input after it.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{Built, NodeView, Operator, axes, no_parameters, tensor};
use crate::graph::Fact;

pub const TABLE: &[Operator] = &[Operator::new("ReduceMean", 1, no_parameters, mean)];

/// Which axes go, and the shapes with and without them.
struct Reduction {
    axes: Vec<usize>,
    /// The shape of the result.
    dims: Vec<usize>,
}

impl Reduction {
    fn read(node: &NodeView<'_>, x: &Fact, last_attribute: i64) -> Result<Self, String> {
        let keep = node.attributes.flag("keepdims", true)?;
        let given = node.axes(1, last_attribute)?;
        let nothing_if_empty =
            node.opset > last_attribute && node.attributes.flag("noop_with_empty_axes", false)?;
        let axes = match given {
            Some(list) if !list.is_empty() => axes(list, x.rank())?,
            _ if nothing_if_empty => Vec::new(),
            _ => (0..x.rank()).collect(),
        };
        let kept = x.dims.iter().enumerate().filter(|(a, _)| keep || !axes.contains(a));
        let dims = kept.map(|(a, d)| if axes.contains(&a) { 1 } else { *d }).collect();
        Ok(Self { axes, dims })
    }
}

fn mean(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let Reduction { axes, dims } = Reduction::read(node, x, 17)?;
    let shape = crate::graph::at_least_one(&dims);
    Built::one(x.reshaped(dims), move |i, _| {
        let mean = axes.iter().fold(i.take(0), |x, a| Dispatch::float_mean_dim(x, *a));
        tensor::reshape(mean, &shape)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
    use crate::onnx::write::{int, ints};

    #[test]
    fn means_by_hand_in_both_forms() {
        let old = Case::new(&[1, 2, 3]).node(
            "ReduceMean",
            &["x"],
            vec![ints("axes", &[-1]), int("keepdims", 0)],
        );
        assert_eq!(old.run(&sequence(6)), [2.0, 5.0]);
        assert_eq!(old.output_shape(), [1, 2]);
        let new = Case::new(&[1, 2, 3]).opset(18).ints("axes", &[1]).node(
            "ReduceMean",
            &["x", "axes"],
            vec![],
        );
        assert_eq!(new.run(&sequence(6)), [2.5, 3.5, 4.5]);
        assert_eq!(new.output_shape(), [1, 1, 3]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[2, 3, 4])
            .node("ReduceMean", &["x"], vec![ints("axes", &[1, 2]), int("keepdims", 0)])
            .check_gradients();
    }
}
