//! `Shape`, `Size`, `ConstantOfShape`, `Range`, `EyeLike`, `NonZero`: values that follow from shapes and
//! numbers known at load.

use super::{Built, NodeView, Operator, no_parameters, tensor};
use crate::graph::limits::MAX_FOLDED_ELEMENTS as MAX_ELEMENTS;
use crate::graph::{Fact, at_least_one};
use crate::onnx::{Element, Elements, HostTensor, Kind};

pub const TABLE: &[Operator] = &[
    Operator::new("Shape", 1, no_parameters, shape),
    Operator::new("Size", 1, no_parameters, size),
    Operator::new("ConstantOfShape", 9, no_parameters, constant_of_shape),
    Operator::new("Range", 11, no_parameters, range),
    Operator::new("EyeLike", 9, no_parameters, eye_like),
    Operator::new("NonZero", 9, no_parameters, non_zero),
];

/// A value without elements, which is known whatever it is computed from.
pub(super) fn empty(element: Element, shape: Vec<usize>) -> Result<Built, String> {
    let span = shape.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)));
    if span.is_none_or(|n| n > MAX_ELEMENTS) {
        return Err(format!("its result of shape {shape:?} is too large"));
    }
    let elements = match element.kind() {
        Kind::Float => Elements::Float(Vec::new()),
        Kind::Int => Elements::Int(Vec::new()),
        Kind::Bool => Elements::Bool(Vec::new()),
    };
    Ok(Built::Constant(HostTensor { element, shape, elements }))
}

fn data<'a>(node: &'a NodeView<'_>) -> Result<&'a Fact, String> {
    node.optional(0).ok_or_else(|| "input 0 is missing".into())
}

/// From `start` to `end` since operator set 15; both clamp.
fn shape(node: &NodeView<'_>) -> Result<Built, String> {
    let x = data(node)?;
    let rank = x.rank() as i64;
    let clamped = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank);
    let (mut from, mut to) = (0, rank);
    if node.opset >= 15 {
        from = clamped(node.attributes.int("start", 0)?);
        to = clamped(node.attributes.int("end", rank)?);
    }
    let part = x.dims.get(from as usize..to as usize).unwrap_or_default();
    Ok(Built::Constant(HostTensor::ints(part.iter().map(|d| *d as i64).collect())))
}

fn size(node: &NodeView<'_>) -> Result<Built, String> {
    Ok(Built::Constant(HostTensor::ints(vec![data(node)?.count() as i64]).scalar()))
}

fn constant_of_shape(node: &NodeView<'_>) -> Result<Built, String> {
    let value = match node.attributes.tensor("value")? {
        Some(proto) => HostTensor::read(proto).map_err(|e| e.to_string())?,
        None => HostTensor::floats(vec![0.0]),
    };
    if value.elements.len() != 1 {
        return Err("its value is not one number".into());
    }
    let dims: Option<Vec<usize>> = node.ints(0)?.iter().map(|d| usize::try_from(*d).ok()).collect();
    let dims = dims.ok_or("a target size is negative")?;
    if dims.contains(&0) {
        return empty(value.element, dims);
    }
    let value = HostTensor { shape: vec![1], ..value };
    let shape = at_least_one(&dims);
    Built::one(Fact::runtime(value.element, dims), move |_, context| {
        let one = tensor::widen(tensor::upload(&value, &context.device), shape.len());
        tensor::expand(one, &shape)
    })
}

fn range(node: &NodeView<'_>) -> Result<Built, String> {
    let element = data(node)?.element;
    let elements = match element.kind() {
        Kind::Float => Elements::Float(float_range(node)?),
        Kind::Int => Elements::Int(int_range(node)?),
        Kind::Bool => return Err("a range of truth values makes no sense".into()),
    };
    Ok(Built::Constant(HostTensor { element, shape: vec![elements.len()], elements }))
}

fn int_range(node: &NodeView<'_>) -> Result<Vec<i64>, String> {
    let mut numbers = [0i128; 3];
    for (place, number) in numbers.iter_mut().enumerate() {
        let [value] = node.ints(place)? else { return Err(format!("input {place} is no number")) };
        *number = i128::from(*value);
    }
    let [start, limit, step] = numbers;
    if step == 0 {
        return Err("a step of zero makes no sense".into());
    }
    let span = if step > 0 { limit - start } else { start - limit };
    let count = if span > 0 { (span - 1) / step.abs() + 1 } else { 0 };
    if count > MAX_ELEMENTS as i128 {
        return Err(format!("it has {count} entries"));
    }
    Ok((0..count).map(|n| (start + n * step) as i64).collect())
}

fn float_range(node: &NodeView<'_>) -> Result<Vec<f32>, String> {
    let mut numbers = [0f64; 3];
    for (place, number) in numbers.iter_mut().enumerate() {
        let value = node.scalar(place)?.ok_or_else(|| format!("input {place} is missing"))?;
        *number = f64::from(value);
    }
    let [start, limit, step] = numbers;
    let count = ((limit - start) / step).ceil();
    if step == 0.0 || !count.is_finite() || count > MAX_ELEMENTS as f64 {
        return Err(format!("from {start} to {limit} by {step} it does not end"));
    }
    Ok((0..count.max(0.0) as usize).map(|n| (start + n as f64 * step) as f32).collect())
}

/// The type is the attribute's, or the input's.
fn eye_like(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let &[rows, columns] = x.dims.as_slice() else {
        return Err(format!("input {x} has not two axes"));
    };
    if x.count() > MAX_ELEMENTS {
        return Err(format!("its result of shape {x} has more than {MAX_ELEMENTS} elements"));
    }
    let diagonal = i128::from(node.attributes.int("k", 0)?);
    let element = match node.attributes.optional_int("dtype")? {
        Some(number) => Element::of(i32::try_from(number).unwrap_or_default())?,
        None => x.element,
    };
    let on = |row: usize| (0..columns).map(move |c| c as i128 - row as i128 == diagonal);
    let ones = (0..rows).flat_map(on);
    let elements = match element.kind() {
        Kind::Float => Elements::Float(ones.map(|on| f32::from(u8::from(on))).collect()),
        Kind::Int => Elements::Int(ones.map(i64::from).collect()),
        Kind::Bool => Elements::Bool(ones.collect()),
    };
    Ok(Built::Constant(HostTensor { element, shape: x.dims.clone(), elements }))
}

/// The places of a constant's entries that are not zero, one column for each.
fn non_zero(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let why = "how many entries are not zero has to be known when the model is loaded";
    let on: Vec<bool> = match &x.constant.as_deref().ok_or(why)?.elements {
        Elements::Float(v) => v.iter().map(|v| *v != 0.0).collect(),
        Elements::Int(v) => v.iter().map(|v| *v != 0).collect(),
        Elements::Bool(v) => v.clone(),
    };
    let dims = at_least_one(&x.dims);
    let count = on.iter().filter(|on| **on).count();
    let mut places = Vec::with_capacity(dims.len() * count);
    let mut stride = on.len();
    for size in &dims {
        stride /= size;
        let place = |(at, _): (usize, &bool)| (at / stride % size) as i64;
        places.extend(on.iter().enumerate().filter(|(_, on)| **on).map(place));
    }
    let shape = vec![dims.len(), count];
    Ok(Built::Constant(HostTensor {
        element: Element::I64,
        shape,
        elements: Elements::Int(places),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::onnx::write::int;

    const X: [f32; 24] = [0.0; 24];

    #[test]
    fn shapes_and_sizes_are_known_at_load() {
        let shape = |attributes| Case::new(&[2, 3, 4]).node("Shape", &["x"], attributes).run(&X);
        assert_eq!(shape(vec![]), [2.0, 3.0, 4.0]);
        assert_eq!(shape(vec![int("start", -2)]), [3.0, 4.0]);
        assert_eq!(shape(vec![int("start", 1), int("end", -1)]), [3.0]);
        assert_eq!(shape(vec![int("start", 9)]), [0f32; 0]);
        assert_eq!(shape(vec![int("start", 2), int("end", 1)]), [0f32; 0]);
        assert_eq!(Case::new(&[2, 3, 4]).node("Size", &["x"], vec![]).run(&X), [24.0]);
    }

    #[test]
    fn a_shape_makes_a_constant() {
        let case = Case::new(&[2, 3])
            .inner("Shape", &["x"], "s", vec![])
            .inner("ConstantOfShape", &["s"], "z", vec![])
            .node("Add", &["x", "z"], vec![]);
        assert_eq!(case.run(&[1.0; 6]), [1.0; 6]);
        let huge = Case::new(&[1])
            .ints("s", &[1 << 40, 1 << 40])
            .node("ConstantOfShape", &["s"], vec![])
            .refusal();
        assert!(huge.contains("more than"), "{huge}");
    }

    fn range(numbers: [i64; 3]) -> Case {
        Case::new(&[1])
            .ints("a", &numbers[..1])
            .ints("b", &numbers[1..2])
            .ints("c", &numbers[2..])
            .node("Range", &["a", "b", "c"], vec![])
    }

    #[test]
    fn ranges_by_hand() {
        let run = |numbers| range(numbers).run(&[0.0]);
        assert_eq!(run([1, 6, 2]), [1.0, 3.0, 5.0]);
        assert_eq!(run([10, 4, -3]), [10.0, 7.0]);
        assert_eq!(run([3, 3, 1]), [0f32; 0]);
        let floats = Case::new(&[1])
            .floats("a", &[], &[1.0])
            .floats("b", &[], &[2.0])
            .floats("c", &[], &[0.5])
            .node("Range", &["a", "b", "c"], vec![]);
        assert_eq!(floats.run(&[0.0]), [1.0, 1.5]);
    }

    #[test]
    fn ranges_without_end_are_refused() {
        assert!(range([0, 1, 0]).refusal().contains("step of zero"));
        assert!(range([i64::MIN, i64::MAX, 1]).refusal().contains("entries"));
    }

    #[test]
    fn places_that_are_not_zero_are_found_in_constants_only() {
        let case = Case::new(&[1]).floats("c", &[2, 2], &[0.0, 3.0, -1.0, 0.0]).node(
            "NonZero",
            &["c"],
            vec![],
        );
        assert_eq!(case.run(&[0.0]), [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(case.output_shape(), [2, 2]);
        let text = Case::new(&[2]).node("NonZero", &["x"], vec![]).refusal();
        assert!(text.contains("has to be known"), "{text}");
    }

    #[test]
    fn a_diagonal_by_hand() {
        let case = Case::new(&[2, 3]).node("EyeLike", &["x"], vec![int("k", 1)]);
        assert_eq!(case.run(&X[..6]), [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        let case = Case::new(&[2, 2]).node("EyeLike", &["x"], vec![int("dtype", 9)]);
        assert_eq!(case.run(&X[..4]), [1.0, 0.0, 0.0, 1.0]);
    }
}
