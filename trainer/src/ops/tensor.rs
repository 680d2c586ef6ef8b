//! Small helpers over burn's rank-free tensors.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Dispatch, TensorMetadata};
use burn::tensor::{Device, Shape, Tensor as Flat, TensorData};

use crate::graph::Tensor;

/// The shape of a value.
pub fn dims(x: &Tensor) -> Vec<usize> {
    x.shape().to_vec()
}

/// The same elements in another shape of as many elements.
pub fn reshape(x: Tensor, shape: &[usize]) -> Tensor {
    if dims(&x) == shape { x } else { Dispatch::float_reshape(x, Shape::from(shape.to_vec())) }
}

/// A value from the host.
pub fn from_host(values: Vec<f32>, shape: &[usize], device: &Device) -> Tensor {
    let count = values.len();
    reshape(Flat::<1>::from_data(TensorData::new(values, [count]), device).into_dispatch(), shape)
}

/// A value's elements on the host.
pub fn to_host(x: Tensor) -> Vec<f32> {
    let count = dims(&x).iter().product();
    Flat::<1>::from_dispatch(reshape(x, &[count])).into_data().iter::<f32>().collect()
}

/// Gives both the same number of dimensions by leading ones; burn broadcasts sizes of one.
pub fn same_rank(a: Tensor, b: Tensor) -> (Tensor, Tensor) {
    let rank = dims(&a).len().max(dims(&b).len());
    (widen(a, rank), widen(b, rank))
}

fn widen(x: Tensor, rank: usize) -> Tensor {
    let old = dims(&x);
    let mut shape = vec![1; rank - old.len()];
    shape.extend(old);
    reshape(x, &shape)
}
