//! `QuantizeLinear`, `DequantizeLinear`, `DynamicQuantizeLinear`: floats as small integers and back,
//! with one scale for all, for every entry of an axis, or for every block along it.
//!
//! Quantised values are integers, through which no gradient passes. Where they are dequantised at
//! once the two nodes are one step that has one: `round_trip`.

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::{BoolDType, FloatDType, IntDType};

use super::cast::converted;
use super::shape::through;
use super::{Built, Fusion, NodeView, Operator, axis, no_parameters, round_trip, tensor};
use crate::graph::{Fact, Tensor};
use crate::onnx::{Element, Kind};

pub const TABLE: &[Operator] = &[
    Operator::new("QuantizeLinear", 10, through, quantize),
    Operator::new("DequantizeLinear", 10, through, dequantize).fused(&[Fusion {
        first: "QuantizeLinear",
        alone: false,
        build: |first, second| round_trip::of_pair(first, second).map(Some),
    }]),
    Operator::new("DynamicQuantizeLinear", 11, no_parameters, dynamic),
];

/// How scales and zero points lie over the data.
struct Spread {
    /// Their shape with an axis of one behind the blocks.
    split: Vec<usize>,
    /// That shape with every block as long as it is.
    blocks: Vec<usize>,
    /// The shape with the blocks after one another.
    joined: Vec<usize>,
    /// The axis with the blocks and its size in the data.
    axis: usize,
    size: usize,
}

impl Spread {
    fn read(node: &NodeView<'_>, x: &Fact) -> Result<Self, String> {
        let scale = node.float(1)?;
        let (along, block) =
            (node.attributes.int("axis", 1)?, node.attributes.int("block_size", 0)?);
        if scale.count() == 1 && scale.rank() < 2 {
            return Ok(Self::over(&vec![1; x.rank().max(1)], 0, 1, 1));
        }
        let along = axis(along, x.rank())?;
        let size = x.dims[along];
        let mut dims = vec![1; x.rank()];
        let block = if block == 0 {
            dims[along] = size;
            if scale.dims == [size] { Some(1) } else { None }
        } else {
            let block = usize::try_from(block).unwrap_or(usize::MAX).min(size);
            dims.clone_from(&x.dims);
            dims[along] = size.div_ceil(block);
            if scale.dims == dims { Some(block) } else { None }
        };
        let block = block.ok_or_else(|| format!("scales {scale} do not fit data {x}"))?;
        Ok(Self::over(&dims, along, block, size))
    }

    fn over(dims: &[usize], axis: usize, block: usize, size: usize) -> Self {
        let mut split = dims.to_vec();
        split.insert(axis + 1, 1);
        let mut blocks = split.clone();
        blocks[axis + 1] = block;
        let mut joined = dims.to_vec();
        joined[axis] *= block;
        Self { split, blocks, joined, axis, size }
    }

    /// A scale or zero point so that it broadcasts with the data.
    fn apply(&self, x: Tensor) -> Tensor {
        let blocks = tensor::expand(tensor::reshape(x, &self.split), &self.blocks);
        let joined = tensor::reshape(blocks, &self.joined);
        if self.joined[self.axis] == self.size {
            return joined;
        }
        tensor::narrow(joined, self.axis, 0, self.size)
    }
}

/// The type of the zero point, which has the shape of the scale, if there is one.
fn zero_point(node: &NodeView<'_>) -> Result<Option<Element>, String> {
    if node.optional(2).is_none() {
        return Ok(None);
    }
    let (scale, zero) = (node.float(1)?, node.of_kind(2, Kind::Int)?);
    if zero.count() != scale.count() || zero.element.width() > 4 {
        return Err(format!("zero point {zero} does not fit scale {scale}"));
    }
    Ok(Some(zero.element))
}

/// Numbers as floats.
pub(super) fn floats(x: Tensor) -> Tensor {
    match tensor::kind(&x) {
        Kind::Int => Dispatch::int_into_float(x, FloatDType::F32),
        _ => x,
    }
}

/// Rounded half to even and moved by the zero point.
fn levels(ratio: Tensor, zero: Option<Tensor>) -> Tensor {
    let levels = Dispatch::float_round(ratio);
    match zero {
        Some(zero) => Dispatch::float_add(levels, floats(zero)),
        None => levels,
    }
}

/// Levels brought into the range of a type.
fn saturated(levels: Tensor, to: Element) -> Tensor {
    let (low, high) = to.range();
    let x = Dispatch::float_clamp(levels, Scalar::Float(low as f64), Scalar::Float(high as f64));
    Dispatch::float_into_int(x, IntDType::I64)
}

/// Floats to levels of a type.
pub(super) struct Quantizer {
    spread: Spread,
    to: Element,
}

impl Quantizer {
    pub(super) fn read(node: &NodeView<'_>) -> Result<Self, String> {
        let x = node.input(0)?;
        let a = &node.attributes;
        a.flag("saturate", true)?;
        let told = match a.int("output_dtype", 0)? {
            0 => None,
            number => Some(Element::of(i32::try_from(number).unwrap_or_default())?),
        };
        if !matches!(a.int("precision", 0)?, 0 | 1) {
            return Err("it divides in 32-bit floats only".into());
        }
        let to = zero_point(node)?.or(told).unwrap_or(Element::U8);
        if told.is_some_and(|told| told != to) || to.kind() != Kind::Int || to.width() > 2 {
            return Err(format!("{to:?} is not quantised to"));
        }
        if x.kind() == Kind::Bool {
            return Err("truth values are not quantised".into());
        }
        Ok(Self { spread: Spread::read(node, x)?, to })
    }

    /// Of a weight that is stored as integers: what dequantizing `node` undoes.
    pub(super) fn of_weight(node: &NodeView<'_>) -> Result<Self, String> {
        let x = node.input(0)?;
        Ok(Self { spread: Spread::read(node, x)?, to: x.element })
    }

    /// Levels before they are brought into range.
    pub(super) fn levels(&self, x: Tensor, scale: Tensor, zero: Option<Tensor>) -> Tensor {
        let ratio = Dispatch::float_div(x, self.spread.apply(scale));
        levels(ratio, zero.map(|zero| self.spread.apply(zero)))
    }

    pub(super) fn saturated(&self, levels: Tensor) -> Tensor {
        saturated(levels, self.to)
    }

    /// The least and the largest level.
    pub(super) fn range(&self) -> (Scalar, Scalar) {
        let (low, high) = self.to.range();
        (Scalar::Float(low as f64), Scalar::Float(high as f64))
    }

    pub(super) fn scale(&self, scale: Tensor) -> Tensor {
        self.spread.apply(scale)
    }
}

fn quantize(node: &NodeView<'_>) -> Result<Built, String> {
    let quantizer = Quantizer::read(node)?;
    let fact = Fact::runtime(quantizer.to, node.input(0)?.dims.clone());
    Built::one(fact, move |i, _| {
        let levels = quantizer.levels(floats(i.take(0)), i.take(1), i.try_take(2));
        quantizer.saturated(levels)
    })
}

/// Levels to floats.
pub(super) struct Dequantizer {
    spread: Spread,
    to: Element,
    /// What is known of its result.
    pub(super) fact: Fact,
}

impl Dequantizer {
    /// The result has the type of the scale, unless it is told.
    pub(super) fn read(node: &NodeView<'_>) -> Result<Self, String> {
        let (x, scale) = (node.of_kind(0, Kind::Int)?, node.float(1)?);
        let to = match node.attributes.int("output_dtype", 0)? {
            0 => scale.element,
            number => Element::of(i32::try_from(number).unwrap_or_default())?,
        };
        if to.kind() != Kind::Float || x.element.width() > 4 {
            return Err(format!("{:?} does not become {to:?}", x.element));
        }
        zero_point(node)?;
        let fact = Fact::runtime(to, x.dims.clone());
        Ok(Self { spread: Spread::read(node, x)?, to, fact })
    }

    pub(super) fn floats(&self, mut x: Tensor, scale: Tensor, zero: Option<Tensor>) -> Tensor {
        if let Some(zero) = zero {
            x = Dispatch::int_sub(x, self.spread.apply(zero));
        }
        converted(Dispatch::float_mul(floats(x), self.spread.apply(scale)), self.to)
    }

    pub(super) fn scale(&self, scale: Tensor) -> Tensor {
        self.spread.apply(scale)
    }
}

fn dequantize(node: &NodeView<'_>) -> Result<Built, String> {
    let dequantizer = Dequantizer::read(node)?;
    if node.parameters.first().is_some_and(Option::is_some) {
        return round_trip::of_weight(Quantizer::of_weight(node)?, dequantizer);
    }
    Built::one(dequantizer.fact.clone(), move |i, _| {
        dequantizer.floats(i.take(0), i.take(1), i.try_take(2))
    })
}

/// The scale takes in zero; where all is zero it is one.
fn dynamic(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let (dims, count) = (x.dims.clone(), x.count());
    let facts = vec![
        Fact::runtime(Element::U8, dims.clone()),
        Fact::runtime(Element::F32, Vec::new()),
        Fact::runtime(Element::U8, Vec::new()),
    ];
    let shape = crate::graph::at_least_one(&dims);
    Built::many(facts, move |i, _| {
        let x = tensor::reshape(i.take(0), &[count]);
        let none = Scalar::Float(0.0);
        let low = Dispatch::float_clamp_max(Dispatch::float_min_dim(x.clone(), 0), none);
        let high = Dispatch::float_clamp_min(Dispatch::float_max_dim(x.clone(), 0), none);
        let span = Dispatch::float_sub(high, low.clone());
        let scale = Dispatch::float_div_scalar(span, Scalar::Float(255.0));
        let flat = Dispatch::float_equal_elem(scale.clone(), none, BoolDType::Native);
        let scale = Dispatch::float_mask_fill(scale, flat, Scalar::Float(1.0));
        let zero = Dispatch::float_neg(Dispatch::float_div(low, scale.clone()));
        let zero = saturated(levels(zero, None), Element::U8);
        let ratio = Dispatch::float_div(x, scale.clone());
        let y = saturated(levels(ratio, Some(zero.clone())), Element::U8);
        vec![tensor::reshape(y, &shape), scale, zero]
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::onnx::write::int;

    const INT8: i64 = 3;

    /// Quantised with that scale and zero point, of type INT8.
    fn quantized(shape: &[usize], scale: (&[usize], &[f32]), zero: &[i64]) -> Case {
        Case::new(shape)
            .floats("s", scale.0, scale.1)
            .ints("wide", zero)
            .inner("Cast", &["wide"], "z", vec![int("to", INT8)])
            .inner("QuantizeLinear", &["x", "s", "z"], "q", vec![int("axis", -1)])
    }

    #[test]
    fn halves_go_to_the_even_neighbour_and_values_saturate() {
        let case = quantized(&[6], (&[], &[2.0]), &[1]).node("Identity", &["q"], vec![]);
        let x = [1.0, 3.0, -1.0, 1000.0, -1000.0, 4.9];
        assert_eq!(case.run(&x), [1.0, 3.0, 1.0, 127.0, -128.0, 3.0]);
    }

    #[test]
    fn a_pair_is_a_round_trip_along_an_axis() {
        let case = quantized(&[2, 2], (&[2], &[1.0, 0.5]), &[3, -3]).node(
            "DequantizeLinear",
            &["q", "s", "z"],
            vec![int("axis", -1)],
        );
        assert_eq!(case.run(&[1.2, 1.2, -200.0, 100.0]), [1.0, 1.0, -131.0, 65.0]);
    }

    #[test]
    fn blocks_share_a_scale_and_the_last_may_be_short() {
        let case = Case::new(&[1, 5])
            .opset(21)
            .floats("s", &[1, 3], &[1.0, 10.0, 100.0])
            .inner("Cast", &["x"], "q", vec![int("to", INT8)])
            .node("DequantizeLinear", &["q", "s"], vec![int("axis", 1), int("block_size", 2)]);
        assert_eq!(case.run(&[1.0, 2.0, 3.0, 4.0, 5.0]), [1.0, 2.0, 30.0, 40.0, 500.0]);
    }

    #[test]
    fn scales_that_do_not_fit_are_refused() {
        let text = quantized(&[2, 2], (&[3], &[1.0; 3]), &[0; 3]).node("Identity", &["q"], vec![]);
        assert!(text.refusal().contains("do not fit data"));
        let text = quantized(&[2, 2], (&[2], &[1.0; 2]), &[0]).node("Identity", &["q"], vec![]);
        assert!(text.refusal().contains("does not fit scale"));
    }

    #[test]
    fn a_dynamic_scale_takes_in_zero() {
        let run = |outputs: &[&str], x: &[f32]| {
            Case::new(&[2]).outputs("DynamicQuantizeLinear", &["x"], outputs, vec![]).run(x)
        };
        assert_eq!(run(&["y"], &[51.0, 255.0]), [51.0, 255.0]);
        assert_eq!(run(&["", "", "y"], &[-255.0, -1.0]), [255.0]);
        assert_eq!(run(&["", "y"], &[0.0, 0.0]), [1.0]);
    }
}
