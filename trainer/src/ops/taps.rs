//! Linear maps along one axis: every output is a weighted sum of a few entries. Averages over
//! windows and interpolation are made of them, one axis after another.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Device;

use super::tensor;
use crate::graph::Tensor;

/// One addend of every output along an axis: which entry, and its weight.
#[derive(Debug, Clone, Default)]
pub struct Addend {
    pub index: Vec<i64>,
    pub weight: Vec<f32>,
}

/// An addend as it is computed.
#[derive(Debug)]
struct Tap {
    index: Vec<i64>,
    /// `None`: one everywhere.
    weight: Option<Vec<f32>>,
}

/// A linear map along one axis.
#[derive(Debug)]
pub struct Taps {
    axis: usize,
    taps: Vec<Tap>,
    /// Added to every output.
    offset: Option<Vec<f32>>,
}

impl Taps {
    /// Each output is the entry at its index; works on values of every kind.
    pub fn pick(axis: usize, index: Vec<i64>) -> Self {
        Self { axis, taps: vec![Tap { index, weight: None }], offset: None }
    }

    /// The sum of at least one addend, with indices within the axis.
    pub fn new(axis: usize, taps: Vec<Addend>) -> Self {
        let taps = taps
            .into_iter()
            .enumerate()
            .filter(|(place, addend)| *place == 0 || addend.weight.iter().any(|w| *w != 0.0))
            .map(|(_, Addend { index, weight })| {
                let plain = weight.iter().all(|w| *w == 1.0);
                Tap { index, weight: (!plain).then_some(weight) }
            })
            .collect();
        Self { axis, taps, offset: None }
    }

    /// The same with something added to every output along the axis.
    pub fn with_offset(mut self, offset: Vec<f32>) -> Self {
        self.offset = offset.iter().any(|v| *v != 0.0).then_some(offset);
        self
    }

    /// Applies the map.
    pub fn apply(&self, x: Tensor, device: &Device) -> Tensor {
        let mut shape = vec![1; tensor::dims(&x).len()];
        let along = |values: &[f32], shape: &mut [usize]| {
            shape[self.axis] = values.len();
            tensor::from_host(values.to_vec(), shape, device)
        };
        let mut sum: Option<Tensor> = None;
        for tap in &self.taps {
            let count = tap.index.len();
            let index = tensor::ints_from_host(tap.index.clone(), &[count], device);
            let mut part = tensor::select(x.clone(), self.axis, index);
            if let Some(weight) = &tap.weight {
                part = Dispatch::float_mul(part, along(weight, &mut shape));
            }
            sum = Some(match sum {
                Some(sum) => Dispatch::float_add(sum, part),
                None => part,
            });
        }
        let sum = sum.unwrap_or(x);
        match &self.offset {
            Some(offset) => Dispatch::float_add(sum, along(offset, &mut shape)),
            None => sum,
        }
    }
}
