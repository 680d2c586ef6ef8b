//! A weight that a file keeps as integers: the levels of a `DequantizeLinear` with a scale and a
//! zero point for all of it or for every entry of one axis.
//!
//! While it trains it is the floats that the levels stand for. What is computed with is always their
//! nearest levels (`ops/round_trip`), which are also what is written back.

use std::collections::HashMap;

use onnx_ir::NodeProto;

use crate::onnx::attributes::Attributes;
use crate::onnx::{Element, Elements, HostTensor};

/// How floats lie on the levels of an integer type.
#[derive(Debug, Clone)]
pub struct Levels {
    element: Element,
    scales: Vec<f32>,
    zeros: Vec<i64>,
    /// How many elements after one another share a scale.
    run: usize,
}

impl Levels {
    /// Of a weight that `node` alone dequantizes; `None` where scales and zero points are not known
    /// or lie in blocks, so that it stays as it is.
    pub(super) fn of(
        node: &NodeProto,
        weight: &HostTensor,
        values: &HashMap<&str, &HostTensor>,
    ) -> Option<Self> {
        let known = |place: usize| values.get(node.input.get(place)?.as_str()).copied();
        let Elements::Float(scales) = &known(1)?.elements else { return None };
        let zeros = match node.input.get(2).filter(|name| !name.is_empty()) {
            None => vec![0; scales.len()],
            Some(_) => match &known(2)?.elements {
                Elements::Int(zeros) if zeros.len() == scales.len() => zeros.clone(),
                _ => return None,
            },
        };
        let run = match scales.len() {
            1 => weight.elements.len(),
            count => {
                let attributes = Attributes::of(node);
                let axis = attributes.int("axis", 1).ok()?;
                let rank = weight.shape.len() as i64;
                let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
                let blocks = attributes.int("block_size", 0).ok()?;
                if weight.shape.get(axis) != Some(&count) || blocks != 0 {
                    return None;
                }
                weight.shape[axis + 1..].iter().product()
            }
        };
        let fits = weight.element.width() <= 4 && weight.element != Element::U32;
        let usable = scales.iter().all(|scale| scale.is_normal()) && run > 0;
        (fits && usable).then(|| Self {
            element: weight.element,
            scales: scales.clone(),
            zeros,
            run,
        })
    }

    /// Scale and zero point of the element at a place.
    fn at(&self, place: usize) -> (f32, i64) {
        let which = place / self.run % self.scales.len();
        (self.scales[which], self.zeros[which])
    }

    /// The floats that levels stand for.
    pub(super) fn floats(&self, levels: &[i64]) -> Vec<f32> {
        let float = |(place, level): (usize, &i64)| {
            let (scale, zero) = self.at(place);
            level.wrapping_sub(zero) as f32 * scale
        };
        levels.iter().enumerate().map(float).collect()
    }

    /// The nearest levels, as floats that hold them.
    pub(super) fn nearest(&self, values: &[f32]) -> Vec<f32> {
        let (low, high) = self.element.range();
        let level = |(place, value): (usize, &f32)| {
            let (scale, zero) = self.at(place);
            ((value / scale).round_ties_even() + zero as f32).clamp(low as f32, high as f32)
        };
        values.iter().enumerate().map(level).collect()
    }
}
