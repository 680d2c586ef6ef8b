//! `GlobalAveragePool`, `GlobalMaxPool`, `GlobalLpPool`: one number a channel.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::pool::{norm, power};
use super::{Built, NodeView, Operator, no_parameters};
use crate::graph::Tensor;

pub const TABLE: &[Operator] = &[
    Operator::new("GlobalAveragePool", 1, no_parameters, |n| {
        global(n, |x, axes| axes.fold(x, Dispatch::float_mean_dim))
    }),
    Operator::new("GlobalMaxPool", 1, no_parameters, |n| {
        global(n, |x, axes| axes.fold(x, Dispatch::float_max_dim))
    }),
    Operator::new("GlobalLpPool", 2, no_parameters, |n| {
        let power = power(n)?;
        global(n, move |x, axes| norm(x, power, |x| axes.fold(x, Dispatch::float_sum_dim)))
    }),
];

fn global(
    node: &NodeView<'_>,
    reduce: impl Fn(Tensor, std::ops::Range<usize>) -> Tensor + Send + Sync + 'static,
) -> Result<Built, String> {
    let x = node.float(0)?;
    let rank = x.rank();
    if rank < 3 {
        return Err(format!("input of shape {x} has no spatial dimensions"));
    }
    let mut dims = x.dims[..2].to_vec();
    dims.extend(vec![1; rank - 2]);
    Built::one(x.reshaped(dims), move |i, _| reduce(i.take(0), 2..rank))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near, sequence};

    #[test]
    fn one_number_a_channel_by_hand() {
        let run = |op: &str| Case::new(&[1, 2, 2, 2]).node(op, &["x"], vec![]).run(&sequence(8));
        assert_eq!(run("GlobalAveragePool"), [2.5, 6.5]);
        assert_eq!(run("GlobalMaxPool"), [4.0, 8.0]);
        near(&run("GlobalLpPool"), &[30f32.sqrt(), 174f32.sqrt()], 1e-4);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"] {
            Case::new(&[2, 3, 4, 2]).node(op, &["x"], vec![]).check_gradients();
        }
    }
}
