//! `ReduceMean`. Its axes are an attribute up to operator set 17 and an input after it.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{Built, NEWEST_OPSET, NodeView, Operator, axis, no_parameters, tensor};
use crate::graph::{Dim, Fact};

pub const TABLE: &[Operator] =
    &[Operator { name: "ReduceMean", opsets: 1..=NEWEST_OPSET, role: no_parameters, build }];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let keep = node.attributes.flag("keepdims", true)?;
    let given = if node.opset >= 18 {
        if node.optional(1).is_some() { Some(node.ints(1)?) } else { None }
    } else {
        node.attributes.ints("axes")?
    };
    let nothing_if_empty =
        node.opset >= 18 && node.attributes.flag("noop_with_empty_axes", false)?;
    let axes: Vec<usize> = match given {
        Some(list) if !list.is_empty() => {
            list.iter().map(|a| axis(*a, x.rank())).collect::<Result<_, _>>()?
        }
        _ if nothing_if_empty => Vec::new(),
        _ => (0..x.rank()).collect(),
    };
    if axes.iter().any(|a| x.dims[*a].fixed().is_none()) {
        return Err(format!("a mean over the batch (shape {x}) is not done"));
    }
    let dims = x
        .dims
        .iter()
        .enumerate()
        .filter(|(a, _)| keep || !axes.contains(a))
        .map(|(a, d)| if axes.contains(&a) { Dim::Fixed(1) } else { *d })
        .collect();
    Built::one(Fact::runtime(dims), move |i, _| {
        let x = i.take(0);
        let sizes = tensor::dims(&x);
        let mean = axes.iter().fold(x, |x, a| Dispatch::float_mean_dim(x, *a));
        if keep {
            return mean;
        }
        let rest: Vec<usize> =
            sizes.iter().enumerate().filter(|(a, _)| !axes.contains(a)).map(|(_, d)| *d).collect();
        tensor::reshape(mean, &rest)
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
