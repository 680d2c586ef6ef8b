//! `ArgMax`, `ArgMin` and `TopK`: where along an axis the largest or smallest values are.
//!
//! Among equal values the first counts, or for `ArgMax` and `ArgMin` the last if the node says so.
//! The order for `TopK` is worked out on the host, because burn's sorting leaves the order of equal
//! values open; its values are gathered and have gradients. It is always sorted.

use std::cmp::Ordering;

use burn::backend::Dispatch;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::tensor::{Device, IntDType, Tensor as Flat};

use super::{Built, NodeView, Operator, axis, integer, no_parameters, tensor};
use crate::graph::{Fact, Tensor, at_least_one};
use crate::onnx::{Element, Kind};

pub const TABLE: &[Operator] = &[
    Operator::new("ArgMax", 1, no_parameters, |n| extreme(n, float_argmax, Dispatch::int_argmax)),
    Operator::new("ArgMin", 1, no_parameters, |n| extreme(n, float_argmin, Dispatch::int_argmin)),
    Operator::new("TopK", 1, no_parameters, top_k),
];

type Search = fn(Tensor, usize) -> Tensor;

fn float_argmax(x: Tensor, along: usize) -> Tensor {
    Dispatch::float_argmax(x, along, IntDType::I64)
}

fn float_argmin(x: Tensor, along: usize) -> Tensor {
    Dispatch::float_argmin(x, along, IntDType::I64)
}

fn extreme(node: &NodeView<'_>, floats: Search, ints: Search) -> Result<Built, String> {
    let x = node.input(0)?;
    let search = match x.kind() {
        Kind::Float => floats,
        Kind::Int => ints,
        Kind::Bool => return Err("truth values have no order".into()),
    };
    let along = axis(node.attributes.int("axis", 0)?, x.rank())?;
    let keep = node.attributes.flag("keepdims", true)?;
    let last = node.opset >= 12 && node.attributes.flag("select_last_index", false)?;
    let mut dims = x.dims.clone();
    dims[along] = 1;
    if !keep {
        dims.remove(along);
    }
    let shape = at_least_one(&dims);
    let end = x.dims[along] as i64 - 1;
    Built::one(Fact::runtime(Element::I64, dims), move |i, _| {
        let x = i.take(0);
        if !last {
            return tensor::reshape(search(x, along), &shape);
        }
        let from_end = search(tensor::flip(x, &[along]), along);
        tensor::reshape(integer::each(from_end, |place| end - place), &shape)
    })
}

/// How many are wanted is an attribute in operator sets before 10 and an input after.
fn wanted(node: &NodeView<'_>) -> Result<i64, String> {
    if node.opset < 10 {
        return node.attributes.optional_int("k")?.ok_or_else(|| "k is missing".into());
    }
    match node.ints(1)? {
        [k] => Ok(*k),
        other => Err(format!("k is {other:?}, one number is needed")),
    }
}

fn top_k(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    if x.kind() == Kind::Bool {
        return Err("truth values have no order".into());
    }
    let along = axis(node.attributes.int("axis", -1)?, x.rank())?;
    let size = x.dims[along];
    let wanted = wanted(node)?;
    let k = usize::try_from(wanted).ok().filter(|k| (1..=size).contains(k));
    let k = k.ok_or_else(|| format!("{wanted} of {size} elements are no choice"))?;
    let largest = node.opset < 11 || node.attributes.flag("largest", true)?;
    if node.opset >= 11 {
        node.attributes.flag("sorted", true)?;
    }
    let mut dims = x.dims.clone();
    dims[along] = k;
    let inner: usize = dims[along + 1..].iter().product();
    let facts = vec![x.reshaped(dims.clone()), Fact::runtime(Element::I64, dims.clone())];
    let float = x.kind() == Kind::Float;
    Built::many(facts, move |i, _| {
        let x = i.take(0);
        let (places, device) = if float {
            let count = tensor::dims(&x).iter().product();
            let flat = tensor::reshape(Dispatch::float_detach(x.clone()), &[count]);
            let device = Flat::<1>::from_dispatch(flat.clone()).device();
            (places(&tensor::to_host(flat), [size, k, inner], largest, f32::total_cmp), device)
        } else {
            let (values, device): (Vec<i64>, Device) = integer::download(x.clone());
            (places(&values, [size, k, inner], largest, i64::cmp), device)
        };
        let places = tensor::ints_from_host(places, &dims, &device);
        vec![tensor::gather(x, along, places.clone()), places]
    })
}

/// The places of the first `k` of `size` along the middle axis, which has `inner` elements behind it.
fn places<T>(
    values: &[T],
    [size, k, inner]: [usize; 3],
    largest: bool,
    compare: fn(&T, &T) -> Ordering,
) -> Vec<i64> {
    let mut found = vec![0; values.len() / size * k];
    let mut order: Vec<usize> = Vec::with_capacity(size);
    for (block, out) in values.chunks(size * inner).zip(found.chunks_mut(k * inner)) {
        for column in 0..inner {
            order.clear();
            order.extend(0..size);
            order.sort_by(|a, b| {
                let (a, b) = (&block[a * inner + column], &block[b * inner + column]);
                if largest { compare(b, a) } else { compare(a, b) }
            });
            for (row, place) in order.iter().take(k).enumerate() {
                out[row * inner + column] = *place as i64;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::places;
    use crate::onnx::write::int;

    #[test]
    fn among_equal_values_the_first_counts_unless_the_last_is_asked_for() {
        let x = [2.0, 5.0, 5.0, 1.0, 0.0, 1.0];
        let run = |op: &str, last| {
            let attributes = vec![int("axis", 1), int("select_last_index", last)];
            Case::new(&[2, 3]).node(op, &["x"], attributes).run(&x)
        };
        assert_eq!(run("ArgMax", 0), [1.0, 0.0]);
        assert_eq!(run("ArgMax", 1), [2.0, 2.0]);
        assert_eq!(run("ArgMin", 0), [0.0, 1.0]);
        let flat =
            Case::new(&[2, 3]).node("ArgMax", &["x"], vec![int("axis", -2), int("keepdims", 0)]);
        assert_eq!(flat.run(&x), [0.0, 0.0, 0.0]);
        assert_eq!(flat.output_shape(), [3]);
    }

    #[test]
    fn the_first_of_a_middle_axis_in_order_with_ties() {
        // Two blocks of 3 × 2.
        let values = [1, 9, 3, 9, 3, 7, 0, 0, 1, 0, 2, 5];
        assert_eq!(places(&values, [3, 2, 2], true, i32::cmp), [1, 0, 2, 1, 2, 2, 1, 0]);
        assert_eq!(places(&values, [3, 1, 2], false, i32::cmp), [0, 2, 0, 0]);
    }

    #[test]
    fn the_largest_and_the_smallest_by_hand() {
        let run = |largest| {
            Case::new(&[1, 4])
                .ints("k", &[2])
                .node("TopK", &["x", "k"], vec![int("largest", largest)])
                .run(&[2.0, -1.0, 7.0, 3.0])
        };
        assert_eq!(run(1), [7.0, 3.0]);
        assert_eq!(run(0), [-1.0, 2.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[3, 4, 2])
            .ints("k", &[2])
            .node("TopK", &["x", "k"], vec![int("axis", 1)])
            .check_gradients();
    }

    #[test]
    fn more_than_there_are_is_refused() {
        let text = Case::new(&[1, 4]).ints("k", &[5]).node("TopK", &["x", "k"], vec![]).refusal();
        assert!(text.contains("5 of 4"), "{text}");
    }
}
