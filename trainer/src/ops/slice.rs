//! `Slice`, `Split`: parts along axes.
//!
//! `Slice` has attributes up to operator set 9 and inputs after it; the sizes of a `Split` are an
//! attribute up to 12 and an input after it.

use burn::tensor::Slice;

use super::generate::empty;
use super::shape::through;
use super::{Built, NodeView, Operator, axis, tensor};
use crate::graph::Fact;

pub const TABLE: &[Operator] =
    &[Operator::new("Slice", 1, through, slice), Operator::new("Split", 2, through, split)];

/// Every `step`-th entry of an axis from `low` on, perhaps from the back to the front.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    low: usize,
    count: usize,
    step: usize,
    reversed: bool,
}

impl Cut {
    /// What a start, an end and a step mean on an axis of that size.
    fn of(start: i64, end: i64, step: i64, size: usize) -> Result<Self, String> {
        let size = size as i64;
        let counted = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        let by = step.unsigned_abs();
        let entries = |span: i64| if span > 0 { (span as u64 - 1) / by + 1 } else { 0 };
        let (start, count) = match step {
            0 => return Err("a step of zero makes no sense".into()),
            1.. => {
                let start = counted(start).clamp(0, size);
                (start, entries(counted(end).clamp(0, size) - start))
            }
            _ => {
                let start = counted(start).clamp(0, size - 1);
                (start, entries(start - counted(end).clamp(-1, size - 1)))
            }
        };
        let reversed = step < 0;
        // One entry is taken whatever the step is; several fit into the axis, and so does the step.
        let step = if count > 1 { by as usize } else { 1 };
        let count = count as usize;
        let back = if reversed { count.saturating_sub(1) * step } else { 0 };
        Ok(Self { low: start as usize - back, count, step, reversed: reversed && count > 1 })
    }

    fn slice(&self) -> Slice {
        let end = self.low + self.count.saturating_sub(1) * self.step + 1;
        Slice { start: self.low as isize, end: Some(end as isize), step: self.step as isize }
    }
}

/// Starts, ends, axes and steps as the file gives them.
fn cuts<'a>(node: &'a NodeView<'_>) -> Result<[Option<&'a [i64]>; 4], String> {
    if node.opset < 10 {
        let a = &node.attributes;
        Ok([a.ints("starts")?, a.ints("ends")?, a.ints("axes")?, None])
    } else {
        let input = |place| node.optional_ints(place);
        Ok([input(1)?, input(2)?, input(3)?, input(4)?])
    }
}

fn slice(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let [Some(starts), Some(ends), along, steps] = cuts(node)? else {
        return Err("starts or ends are missing".into());
    };
    let along: Vec<i64> = along.map_or_else(|| (0..starts.len() as i64).collect(), <[i64]>::to_vec);
    let steps = steps.map_or_else(|| vec![1; starts.len()], <[i64]>::to_vec);
    if [ends.len(), along.len(), steps.len()] != [starts.len(); 3] {
        return Err("starts, ends, axes and steps are not equally many".into());
    }
    super::axes(&along, x.rank())?;
    let mut dims = x.dims.clone();
    let mut slices: Vec<Slice> = dims.iter().map(|d| Slice::from(0..*d as i64)).collect();
    let mut flipped = Vec::new();
    for place in 0..starts.len() {
        let a = axis(along[place], x.rank())?;
        let cut = Cut::of(starts[place], ends[place], steps[place], x.dims[a])?;
        dims[a] = cut.count;
        slices[a] = cut.slice();
        if cut.reversed {
            flipped.push(a);
        }
    }
    if dims.contains(&0) {
        return empty(x.element, dims);
    }
    Built::one(x.reshaped(dims), move |i, _| {
        let part = tensor::slice(i.take(0), &slices);
        if flipped.is_empty() { part } else { tensor::flip(part, &flipped) }
    })
}

/// The sizes of the parts of an axis of `size` entries.
fn sizes(node: &NodeView<'_>, size: usize) -> Result<Vec<usize>, String> {
    let given =
        if node.opset < 13 { node.attributes.ints("split")? } else { node.optional_ints(1)? };
    let parts = if node.opset < 18 { None } else { node.attributes.optional_int("num_outputs")? };
    if let Some(given) = given {
        let sizes: Option<Vec<usize>> = given.iter().map(|n| usize::try_from(*n).ok()).collect();
        return sizes.ok_or_else(|| format!("sizes {given:?} make no sense"));
    }
    let count = parts.unwrap_or(node.outputs.len() as i64);
    let count = usize::try_from(count).ok().filter(|n| *n == node.outputs.len() && *n > 0);
    let count = count.ok_or("num_outputs is not the number of outputs")?;
    if parts.is_none() && !size.is_multiple_of(count) {
        return Err(format!("{size} entries do not split into {count} equal parts"));
    }
    let each = size.div_ceil(count);
    let mut sizes = vec![each; count - 1];
    let last = size.checked_sub(each * (count - 1));
    sizes.push(last.ok_or_else(|| format!("{size} entries do not make {count} parts"))?);
    Ok(sizes)
}

fn split(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let along = axis(node.attributes.int("axis", 0)?, x.rank())?;
    let sizes = sizes(node, x.dims[along])?;
    let total = sizes.iter().try_fold(0usize, |n, s| n.checked_add(*s));
    if total != Some(x.dims[along]) || sizes.len() != node.outputs.len() {
        return Err(format!(
            "sizes {sizes:?} do not make up axis {along} of {x} and {} outputs",
            node.outputs.len()
        ));
    }
    if sizes.contains(&0) {
        return Err("a part without entries is not made".into());
    }
    let part = |size: &usize| {
        let mut dims = x.dims.clone();
        dims[along] = *size;
        x.reshaped(dims)
    };
    let parts: Vec<Fact> = sizes.iter().map(part).collect();
    Built::many(parts, move |i, _| {
        let x = i.take(0);
        let mut from = 0;
        let next = |size: &usize| {
            from += size;
            tensor::narrow(x.clone(), along, from - size, from)
        };
        sizes.iter().map(next).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
    use crate::onnx::write::{int, ints};

    fn sliced(start: i64, end: i64, step: i64) -> Vec<f32> {
        Case::new(&[1, 5])
            .ints("s", &[start])
            .ints("e", &[end])
            .ints("a", &[-1])
            .ints("t", &[step])
            .node("Slice", &["x", "s", "e", "a", "t"], vec![])
            .run(&sequence(5))
    }

    #[test]
    fn starts_and_ends_clamp_and_steps_count_from_the_start() {
        assert_eq!(sliced(1, 4, 1), [2.0, 3.0, 4.0]);
        assert_eq!(sliced(-2, i64::MAX, 1), [4.0, 5.0]);
        assert_eq!(sliced(0, 5, 2), [1.0, 3.0, 5.0]);
        assert_eq!(sliced(1, 5, 2), [2.0, 4.0]);
        assert_eq!(sliced(-1, i64::MIN, -1), [5.0, 4.0, 3.0, 2.0, 1.0]);
        assert_eq!(sliced(4, 0, -2), [5.0, 3.0]);
        assert_eq!(sliced(3, -100, -2), [4.0, 2.0]);
        assert_eq!(sliced(2, 3, i64::MAX), [3.0]);
        assert_eq!(sliced(2, 1, i64::MIN), [3.0]);
        assert_eq!(sliced(3, 1, 1), [0f32; 0]);
        assert_eq!(sliced(i64::MAX, i64::MAX, 1), [0f32; 0]);
    }

    #[test]
    fn the_old_form_has_attributes() {
        let case = Case::new(&[2, 3]).opset(9).node(
            "Slice",
            &["x"],
            vec![ints("starts", &[0, 1]), ints("ends", &[9, 3])],
        );
        assert_eq!(case.run(&sequence(6)), [2.0, 3.0, 5.0, 6.0]);
    }

    #[test]
    fn a_split_takes_sizes_or_a_number_of_outputs() {
        let second = |case: Case, inputs: &[&str], attributes| {
            case.split(inputs, attributes).run(&sequence(5))
        };
        let axis = || int("axis", 1);
        let case = Case::new(&[1, 5]).ints("s", &[1, 4]);
        assert_eq!(second(case, &["x", "s"], vec![axis()]), [2.0, 3.0, 4.0, 5.0]);
        let case = Case::new(&[1, 5]).opset(11);
        assert_eq!(second(case, &["x"], vec![axis(), ints("split", &[4, 1])]), [5.0]);
        let case = Case::new(&[1, 5]).opset(18);
        assert_eq!(second(case, &["x"], vec![axis(), int("num_outputs", 2)]), [4.0, 5.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refusal =
            |case: Case, inputs: &[&str]| case.split(inputs, vec![int("axis", 1)]).refusal();
        assert!(refusal(Case::new(&[1, 5]), &["x"]).contains("equal parts"));
        let text = refusal(Case::new(&[1, 5]).ints("s", &[i64::MAX, i64::MAX]), &["x", "s"]);
        assert!(text.contains("do not make up"), "{text}");
        let text = Case::new(&[1, 5])
            .ints("s", &[0])
            .ints("z", &[0])
            .node("Slice", &["x", "s", "s", "s", "z"], vec![])
            .refusal();
        assert!(text.contains("step of zero"), "{text}");
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[2, 7, 5])
            .ints("s", &[-1, 0])
            .ints("e", &[0, 5])
            .ints("a", &[1, 2])
            .ints("t", &[-2, 3])
            .node("Slice", &["x", "s", "e", "a", "t"], vec![])
            .check_gradients();
        Case::new(&[2, 6]).split(&["x"], vec![int("axis", 1)]).check_gradients();
    }

    impl Case {
        /// Splits into `first`, which nobody reads, and `y`.
        fn split(self, inputs: &[&str], attributes: Vec<onnx_ir::AttributeProto>) -> Self {
            self.outputs("Split", inputs, &["first", "y"], attributes)
        }
    }
}
