//! `Gather`, `GatherElements`, `GatherND`: entries by their indices.
//!
//! A table of floats that indices are looked up in trains as a weight.

use burn::backend::Dispatch;
use burn::backend::ops::IntTensorOps;

use super::index::{Lookup, offsets};
use super::{Built, NodeView, Operator, axis, tensor};
use crate::graph::{Fact, Role, at_least_one};
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[
    Operator::new("Gather", 1, table, gather),
    Operator::new("GatherElements", 11, table, gather_elements),
    Operator::new("GatherND", 11, table, gather_nd),
];

fn table(place: usize, elements: usize) -> Role {
    if place == 0 && elements > 1 { Role::Weight } else { Role::Constant }
}

fn indices<'a>(node: &'a NodeView<'_>) -> Result<&'a Fact, String> {
    node.of_kind(1, Kind::Int)
}

fn gather(node: &NodeView<'_>) -> Result<Built, String> {
    let (x, indices) = (node.input(0)?, indices(node)?);
    let along = axis(node.attributes.int("axis", 0)?, x.rank())?;
    let lookup = Lookup::new(indices, &[x.dims[along]])?;
    let mut dims = x.dims.clone();
    dims.splice(along..=along, indices.dims.iter().copied());
    let shape = at_least_one(&dims);
    let count = indices.count();
    Built::one(x.reshaped(dims), move |i, _| {
        let x = i.take(0);
        let flat = lookup.flat(tensor::reshape(i.take(1), &[count]));
        tensor::reshape(tensor::select(x, along, flat), &shape)
    })
}

/// Along the other axes the indices may cover less than the data.
fn gather_elements(node: &NodeView<'_>) -> Result<Built, String> {
    let (x, indices) = (node.input(0)?, indices(node)?);
    let along = axis(node.attributes.int("axis", 0)?, x.rank())?;
    let fits = |a: usize| a == along || indices.dims[a] <= x.dims[a];
    if indices.rank() != x.rank() || !(0..x.rank()).all(fits) {
        return Err(format!("indices of shape {indices} do not fit data of shape {x}"));
    }
    let lookup = Lookup::new(indices, &[x.dims[along]])?;
    let covered = indices.dims.clone();
    Built::one(x.reshaped(indices.dims.clone()), move |i, _| {
        let mut x = i.take(0);
        for (a, size) in covered.iter().enumerate().filter(|(a, _)| *a != along) {
            if tensor::dims(&x)[a] != *size {
                x = tensor::narrow(x, a, 0, *size);
            }
        }
        tensor::gather(x, along, lookup.flat(i.take(1)))
    })
}

fn gather_nd(node: &NodeView<'_>) -> Result<Built, String> {
    let (x, indices) = (node.input(0)?, indices(node)?);
    let batch = usize::try_from(node.attributes.int("batch_dims", 0)?).unwrap_or(usize::MAX);
    let Some((depth, front)) = indices.dims.split_last() else {
        return Err("the indices have no axes".into());
    };
    if batch > front.len() || batch >= x.rank() || x.dims[..batch] != front[..batch] {
        return Err(format!("{batch} batch axes do not fit {x} and {indices}"));
    }
    let (groups, rest) = x.dims.split_at(batch);
    if *depth > rest.len() {
        return Err(format!("indices of shape {indices} do not fit data of shape {x}"));
    }
    let (looked, kept) = rest.split_at(*depth);
    let lookup = Lookup::new(indices, looked)?;
    let dims: Vec<usize> = front.iter().chain(kept).copied().collect();
    let shape = at_least_one(&dims);
    let (groups, depth) = (groups.iter().product::<usize>(), *depth);
    let (span, count) = (looked.iter().product::<usize>(), indices.count() / depth);
    let rows = [groups * span, kept.iter().product()];
    Built::one(x.reshaped(dims), move |i, context| {
        let x = tensor::reshape(i.take(0), &rows);
        let joined = lookup.joined(&tensor::reshape(i.take(1), &[count, depth]));
        let each = tensor::reshape(joined, &[groups, count / groups]);
        let flat = Dispatch::int_add(each, offsets(groups, span, 0, 2, &context.device));
        tensor::reshape(tensor::select(x, 0, tensor::reshape(flat, &[count])), &shape)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
    use crate::graph::Role;
    use crate::onnx::write::int;

    #[test]
    fn truth_values_that_were_looked_up_are_truth_values() {
        let looked_up = |op: &str, indices: &[i64], shape: &[i64]| {
            Case::new(&[3, 2])
                .floats("zero", &[1], &[0.0])
                .ints("flat", indices)
                .ints("shape", shape)
                .inner("Greater", &["x", "zero"], "t", vec![])
                .inner("Reshape", &["flat", "shape"], "i", vec![])
                .inner(op, &["t", "i"], "g", vec![])
                .inner("Not", &["g"], "n", vec![])
                .node("And", &["n", "n"], vec![])
                .run(&[1.0, -1.0, 0.0, 0.0, -1.0, 1.0])
        };
        assert_eq!(looked_up("GatherND", &[2, 0], &[2, 1]), [1.0, 0.0, 0.0, 1.0]);
        assert_eq!(looked_up("GatherElements", &[2, 2], &[1, 2]), [1.0, 0.0]);
    }

    /// Indices of any shape.
    fn case(op: &str, from: &[usize], indices: &[i64], shape: &[i64], batch: i64) -> Case {
        let attributes = if op == "GatherND" { int("batch_dims", batch) } else { int("axis", 1) };
        Case::new(from)
            .ints("flat", indices)
            .ints("shape", shape)
            .inner("Reshape", &["flat", "shape"], "i", vec![])
            .node(op, &["x", "i"], vec![attributes])
    }

    #[test]
    fn values_by_hand() {
        let x = sequence(6);
        let gathered = case("Gather", &[2, 3], &[2, -3], &[2, 1], 0);
        assert_eq!(gathered.run(&x), [3.0, 1.0, 6.0, 4.0]);
        assert_eq!(gathered.output_shape(), [2, 2, 1]);
        let one = case("Gather", &[2, 3], &[1], &[], 0);
        assert_eq!(one.run(&x), [2.0, 5.0]);
        assert_eq!(one.output_shape(), [2]);
        let elements = case("GatherElements", &[2, 3], &[2, -1], &[1, 2], 0);
        assert_eq!(elements.run(&x), [3.0, 3.0]);
        let pairs = case("GatherND", &[2, 3], &[1, -1, 0, 1], &[2, 2], 0);
        assert_eq!(pairs.run(&x), [6.0, 2.0]);
        let rows = case("GatherND", &[2, 3], &[1], &[1, 1], 0);
        assert_eq!(rows.run(&x), [4.0, 5.0, 6.0]);
        let batched = case("GatherND", &[2, 3], &[1, -1], &[2, 1], 1);
        assert_eq!(batched.run(&x), [2.0, 6.0]);
    }

    #[test]
    fn constant_indices_out_of_range_are_refused() {
        for op in ["Gather", "GatherElements"] {
            let text = case(op, &[2, 3], &[3], &[1, 1], 0).refusal();
            assert!(text.contains("index 3 is not in an axis of 3"), "{text}");
        }
        let text = case("GatherND", &[2, 3], &[0, -4], &[1, 2], 0).refusal();
        assert!(text.contains("index -4"), "{text}");
        let text = case("GatherND", &[2, 3], &[0, 0, 0], &[1, 3], 0).refusal();
        assert!(text.contains("do not fit"), "{text}");
    }

    #[test]
    fn an_index_out_of_range_in_use_takes_the_nearest_entry() {
        let case = Case::new(&[4])
            .floats("table", &[3, 1], &[10.0, 20.0, 30.0])
            .inner("Cast", &["x"], "i", vec![int("to", 7)])
            .node("Gather", &["table", "i"], vec![]);
        assert_eq!(case.run(&[-1.0, 0.0, 99.0, -99.0]), [30.0, 10.0, 30.0, 10.0]);
    }

    #[test]
    fn a_table_trains_as_a_weight() {
        let case = Case::new(&[2, 3])
            .random("w", &[5, 3])
            .ints("i", &[4, 0])
            .inner("Gather", &["w", "i"], "g", vec![])
            .node("Add", &["x", "g"], vec![]);
        assert_eq!(case.roles(), [Role::Weight]);
        case.check_gradients();
    }

    #[test]
    fn gradients_match_finite_differences() {
        case("Gather", &[2, 3, 2], &[2, 0, -1, 2], &[2, 2], 0).check_gradients();
        case("GatherElements", &[3, 4], &[2, 0, -1, 2], &[2, 2], 0).check_gradients();
        case("GatherND", &[2, 3, 2], &[1, -1, 0, 1, 1, 2], &[3, 2], 0).check_gradients();
        case("GatherND", &[2, 3, 2], &[1, 1, -1, 0], &[2, 2, 1], 1).check_gradients();
    }
}
