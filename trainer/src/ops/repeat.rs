//! `Expand`, `Tile`: the same elements several times over.

use super::generate::empty;
use super::shape::through;
use super::{Built, NodeView, Operator, broadcast, tensor};
use crate::graph::Fact;

pub const TABLE: &[Operator] =
    &[Operator::new("Expand", 8, through, expand), Operator::new("Tile", 6, through, tile)];

/// The target broadcasts against the shape in both directions.
fn expand(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let target: Option<Vec<usize>> =
        node.ints(1)?.iter().map(|d| usize::try_from(*d).ok()).collect();
    let target = target.ok_or("a target size is negative")?;
    let dims = broadcast(x, &Fact::runtime(x.element, target))?;
    if dims.contains(&0) {
        return empty(x.element, dims);
    }
    let shape = crate::graph::at_least_one(&dims);
    Built::one(x.reshaped(dims), move |i, _| {
        tensor::expand(tensor::widen(i.take(0), shape.len()), &shape)
    })
}

fn tile(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let times: Option<Vec<usize>> =
        node.ints(1)?.iter().map(|n| usize::try_from(*n).ok()).collect();
    let times = times.filter(|t| t.len() == x.rank());
    let times = times.ok_or_else(|| format!("the repeats do not fit the axes of {x}"))?;
    let dims = x.dims.iter().zip(&times).map(|(d, n)| d.checked_mul(*n));
    let dims: Vec<usize> = dims.collect::<Option<_>>().ok_or("the result is too large")?;
    if dims.contains(&0) {
        return empty(x.element, dims);
    }
    Built::one(x.reshaped(dims), move |i, _| {
        let repeated = |x, (axis, n): (usize, &usize)| tensor::repeat(x, axis, *n);
        times.iter().enumerate().fold(i.take(0), repeated)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};

    fn case(op: &str, from: &[usize], by: &[i64]) -> Case {
        Case::new(from).ints("s", by).node(op, &["x", "s"], vec![])
    }

    #[test]
    fn values_by_hand() {
        let expanded = case("Expand", &[2, 1], &[2, 1, 2]);
        assert_eq!(expanded.output_shape(), [2, 2, 2]);
        assert_eq!(expanded.run(&sequence(2)), [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!(case("Expand", &[2, 3], &[1]).output_shape(), [2, 3]);
        let tiled = case("Tile", &[1, 2], &[2, 2]);
        assert_eq!(tiled.run(&sequence(2)), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(case("Expand", &[2, 3], &[2]).refusal().contains("do not broadcast"));
        assert!(case("Expand", &[2, 1], &[-1]).refusal().contains("negative"));
        assert!(case("Expand", &[2, 1], &[1 << 40, 1]).refusal().contains("do not broadcast"));
        assert!(case("Expand", &[1, 1], &[1 << 40, 1 << 40]).refusal().contains("more than"));
        assert!(case("Tile", &[2, 1], &[3]).refusal().contains("do not fit"));
        assert!(case("Tile", &[3, 1], &[i64::MAX, 1]).refusal().contains("too large"));
    }

    #[test]
    fn gradients_match_finite_differences() {
        case("Expand", &[2, 1, 3], &[2, 2, 4, 3]).check_gradients();
        case("Tile", &[2, 3], &[2, 3]).check_gradients();
    }
}
