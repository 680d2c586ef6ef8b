//! Indices into an axis, and into several axes at once.
//!
//! A negative index counts from the end. Constant indices out of range are refused when the model is
//! loaded; those that are known only when it runs are brought to the nearest entry there is, because
//! looking at them would make the host wait for the device.

use burn::backend::ops::IntTensorOps;
use burn::backend::{Dispatch, Scalar};
use burn::tensor::{BoolDType, Device};

use super::tensor;
use crate::graph::{Fact, Tensor};

/// How indices into axes become indices into those axes laid flat.
pub struct Lookup {
    /// Sizes of the axes.
    sizes: Vec<usize>,
    /// Whether every index is known to count from the front.
    all_counted: bool,
}

impl Lookup {
    /// For indices whose last axis has an entry for each of the `sizes`.
    pub fn new(indices: &Fact, sizes: &[usize]) -> Result<Self, String> {
        let known = indices.ints();
        let at = |place: usize| sizes[place % sizes.len()] as i64;
        for (place, index) in known.into_iter().flatten().enumerate() {
            if !(-at(place)..at(place)).contains(index) {
                return Err(format!("index {index} is not in an axis of {} entries", at(place)));
            }
        }
        let all_counted = known.is_some_and(|list| list.iter().all(|index| *index >= 0));
        Ok(Self { sizes: sizes.to_vec(), all_counted })
    }

    /// The indices counted from the front.
    fn seen_from_front(&self, indices: Tensor, size: usize) -> Tensor {
        if self.all_counted {
            return indices;
        }
        let size = size as i64;
        let near = Dispatch::int_clamp(indices, Scalar::Int(-size), Scalar::Int(size - 1));
        let negative = Dispatch::int_lower_elem(near.clone(), Scalar::Int(0), BoolDType::Native);
        let counted = Dispatch::int_add_scalar(near.clone(), Scalar::Int(size));
        tensor::choose(negative, counted, near)
    }

    /// Indices into the one axis there is.
    pub fn flat(&self, indices: Tensor) -> Tensor {
        self.seen_from_front(indices, self.sizes[0])
    }

    /// Indices of shape [n, axes] as indices into the axes laid flat, of shape [n, 1].
    pub fn joined(&self, indices: &Tensor) -> Tensor {
        let mut stride: usize = self.sizes.iter().product();
        let term = |(place, size): (usize, &usize)| {
            stride /= size;
            let part = tensor::narrow(indices.clone(), 1, place, place + 1);
            Dispatch::int_mul_scalar(self.seen_from_front(part, *size), Scalar::Int(stride as i64))
        };
        let terms: Vec<Tensor> = self.sizes.iter().enumerate().map(term).collect();
        terms.into_iter().reduce(Dispatch::int_add).unwrap_or_else(|| indices.clone())
    }
}

/// 0, `step`, 2 `step`, … along the axis `along` of `rank` axes.
pub fn offsets(count: usize, step: usize, along: usize, rank: usize, device: &Device) -> Tensor {
    let mut shape = vec![1; rank];
    shape[along] = count;
    let values = (0..count).map(|n| (n * step) as i64).collect();
    tensor::ints_from_host(values, &shape, device)
}
