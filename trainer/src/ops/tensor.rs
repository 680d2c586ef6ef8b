//! Small helpers over burn's rank-free tensors. A tensor knows its own kind; what only moves
//! elements works on every kind.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar, TensorMetadata};
use burn::tensor::{
    Bool, BoolDType, DType, Device, Int, IntDType, Shape, Slice, Tensor as Flat, TensorData,
};

use crate::graph::{Tensor, at_least_one};
use crate::onnx::{Elements, HostTensor, Kind};

/// What a value is computed as.
pub fn kind(x: &Tensor) -> Kind {
    match x.dtype() {
        DType::Bool(_) => Kind::Bool,
        dtype if dtype.is_float() => Kind::Float,
        _ => Kind::Int,
    }
}

/// Runs the one of three operations that suits the kind of `$x`.
macro_rules! by_kind {
    ($x:expr, $float:expr, $int:expr, $bool:expr) => {
        match kind($x) {
            Kind::Float => $float,
            Kind::Int => $int,
            Kind::Bool => $bool,
        }
    };
}

/// The shape of a value.
pub fn dims(x: &Tensor) -> Vec<usize> {
    x.shape().to_vec()
}

/// The same elements in another shape of as many elements.
pub fn reshape(x: Tensor, shape: &[usize]) -> Tensor {
    if dims(&x) == shape {
        return x;
    }
    let shape = Shape::from(shape.to_vec());
    by_kind!(
        &x,
        Dispatch::float_reshape(x, shape),
        Dispatch::int_reshape(x, shape),
        Dispatch::bool_reshape(x, shape)
    )
}

/// The axes in another order.
pub fn permute(x: Tensor, order: &[usize]) -> Tensor {
    by_kind!(
        &x,
        Dispatch::float_permute(x, order),
        Dispatch::int_permute(x, order),
        Dispatch::bool_permute(x, order)
    )
}

/// A part of every axis.
pub fn slice(x: Tensor, slices: &[Slice]) -> Tensor {
    by_kind!(
        &x,
        Dispatch::float_slice(x, slices),
        Dispatch::int_slice(x, slices),
        Dispatch::bool_slice(x, slices)
    )
}

/// The elements in reverse order along these axes.
pub fn flip(x: Tensor, axes: &[usize]) -> Tensor {
    by_kind!(
        &x,
        Dispatch::float_flip(x, axes),
        Dispatch::int_flip(x, axes),
        Dispatch::bool_flip(x, axes)
    )
}

/// `from` to `to` (exclusive) along one axis, everything along the others.
pub fn narrow(x: Tensor, axis: usize, from: usize, to: usize) -> Tensor {
    let sizes = dims(&x);
    let mut slices: Vec<Slice> = sizes.iter().map(|d| Slice::from(0..*d as i64)).collect();
    slices[axis] = Slice::from(from as i64..to as i64);
    slice(x, &slices)
}

/// Truth values as 1 and 0. What looks them up or changes some of them goes this way: flex calls
/// truth values that it looked up bytes.
pub fn integers(truths: Tensor) -> Tensor {
    Dispatch::bool_into_int(truths, IntDType::I64)
}

/// What is not 0.
pub fn truths(integers: Tensor) -> Tensor {
    Dispatch::int_not_equal_elem(integers, Scalar::Int(0), BoolDType::Native)
}

/// The entries at `indices` (one dimension) along an axis.
pub fn select(x: Tensor, axis: usize, indices: Tensor) -> Tensor {
    match kind(&x) {
        Kind::Float => Dispatch::float_select(x, axis, indices),
        Kind::Int => Dispatch::int_select(x, axis, indices),
        Kind::Bool => truths(Dispatch::int_select(integers(x), axis, indices)),
    }
}

/// For every place the entry at its index along an axis; both have the same rank.
pub fn gather(x: Tensor, axis: usize, indices: Tensor) -> Tensor {
    match kind(&x) {
        Kind::Float => Dispatch::float_gather(axis, x, indices),
        Kind::Int => Dispatch::int_gather(axis, x, indices),
        Kind::Bool => truths(Dispatch::int_gather(axis, integers(x), indices)),
    }
}

/// Repeats axes of size one up to `shape`, which has as many axes.
pub fn expand(x: Tensor, shape: &[usize]) -> Tensor {
    if dims(&x) == shape {
        return x;
    }
    let shape = Shape::from(shape.to_vec());
    by_kind!(
        &x,
        Dispatch::float_expand(x, shape),
        Dispatch::int_expand(x, shape),
        Dispatch::bool_expand(x, shape)
    )
}

/// Several copies after one another along an axis.
pub fn repeat(x: Tensor, axis: usize, times: usize) -> Tensor {
    if times == 1 {
        return x;
    }
    by_kind!(
        &x,
        Dispatch::float_repeat_dim(x, axis, times),
        Dispatch::int_repeat_dim(x, axis, times),
        Dispatch::bool_repeat_dim(x, axis, times)
    )
}

/// One after another along an axis; all of one kind.
pub fn concat(parts: Vec<Tensor>, axis: usize) -> Tensor {
    by_kind!(
        &parts[0],
        Dispatch::float_cat(parts, axis),
        Dispatch::int_cat(parts, axis),
        Dispatch::bool_cat(parts, axis)
    )
}

/// `yes` where `mask` holds, `no` elsewhere; all of one shape.
pub fn choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor {
    by_kind!(
        &no,
        Dispatch::float_mask_where(no, mask, yes),
        Dispatch::int_mask_where(no, mask, yes),
        Dispatch::bool_mask_where(no, mask, yes)
    )
}

/// Floats from the host.
pub fn from_host(values: Vec<f32>, shape: &[usize], device: &Device) -> Tensor {
    let count = values.len();
    reshape(Flat::<1>::from_data(TensorData::new(values, [count]), device).into_dispatch(), shape)
}

/// Integers from the host.
pub fn ints_from_host(values: Vec<i64>, shape: &[usize], device: &Device) -> Tensor {
    let count = values.len();
    let options = (device, DType::I64);
    let flat = Flat::<1, Int>::from_data(TensorData::new(values, [count]), options);
    reshape(flat.into_dispatch(), shape)
}

/// Truth values from the host.
pub fn bools_from_host(values: Vec<bool>, shape: &[usize], device: &Device) -> Tensor {
    let count = values.len();
    let data = TensorData::new(values, [count]);
    reshape(Flat::<1, Bool>::from_data(data, device).into_dispatch(), shape)
}

/// A value of a file.
pub fn upload(tensor: &HostTensor, device: &Device) -> Tensor {
    let shape = at_least_one(&tensor.shape);
    match &tensor.elements {
        Elements::Float(values) => from_host(values.clone(), &shape, device),
        Elements::Int(values) => ints_from_host(values.clone(), &shape, device),
        Elements::Bool(values) => bools_from_host(values.clone(), &shape, device),
    }
}

/// A float value's elements on the host.
pub fn to_host(x: Tensor) -> Vec<f32> {
    let count = dims(&x).iter().product();
    Flat::<1>::from_dispatch(reshape(x, &[count])).into_data().iter::<f32>().collect()
}

/// A value's elements on the host.
pub fn download(x: Tensor) -> Elements {
    let count = dims(&x).iter().product();
    let flat = reshape(x, &[count]);
    match kind(&flat) {
        Kind::Float => Elements::Float(to_host(flat)),
        Kind::Int => {
            Elements::Int(Flat::<1, Int>::from_dispatch(flat).into_data().iter::<i64>().collect())
        }
        Kind::Bool => Elements::Bool(
            Flat::<1, Bool>::from_dispatch(flat).into_data().iter::<bool>().collect(),
        ),
    }
}

/// Gives both the same number of dimensions by leading ones; burn broadcasts sizes of one.
pub fn same_rank(a: Tensor, b: Tensor) -> (Tensor, Tensor) {
    let rank = dims(&a).len().max(dims(&b).len());
    (widen(a, rank), widen(b, rank))
}

/// Leading ones up to that number of dimensions.
pub fn widen(x: Tensor, rank: usize) -> Tensor {
    let old = dims(&x);
    let mut shape = vec![1; rank.saturating_sub(old.len())];
    shape.extend(old);
    reshape(x, &shape)
}
