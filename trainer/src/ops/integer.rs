//! Arithmetic on integers, which are all computed as `i64`: what their narrower types in the file
//! would do.
//!
//! It happens on the host. Integers in a graph are sizes and indices, few and mostly constant; and
//! there, unlike on a device, what overflows wraps and what divides by zero does not end the process.

use burn::tensor::{Bool, Device, Int, Tensor as Flat};

use super::tensor;
use crate::graph::Tensor;
use crate::onnx::{Element, Elements, Kind};

/// A value's integers (truth values as 0 and 1) and the device it is on.
pub fn download(x: Tensor) -> (Vec<i64>, Device) {
    let count = tensor::dims(&x).iter().product();
    let x = tensor::reshape(x, &[count]);
    let device = match tensor::kind(&x) {
        Kind::Float => Flat::<1>::from_dispatch(x.clone()).device(),
        Kind::Int => Flat::<1, Int>::from_dispatch(x.clone()).device(),
        Kind::Bool => Flat::<1, Bool>::from_dispatch(x.clone()).device(),
    };
    let values = match tensor::download(x) {
        Elements::Int(values) => values,
        Elements::Bool(values) => values.into_iter().map(i64::from).collect(),
        Elements::Float(values) => values.into_iter().map(|v| v as i64).collect(),
    };
    (values, device)
}

/// The function of every element.
pub fn each(x: Tensor, function: impl Fn(i64) -> i64) -> Tensor {
    let shape = tensor::dims(&x);
    let (values, device) = download(x);
    tensor::ints_from_host(values.into_iter().map(function).collect(), &shape, &device)
}

/// The function of every pair; both have the same rank and broadcast.
pub fn pairs(a: Tensor, b: Tensor, function: impl Fn(i64, i64) -> i64) -> Tensor {
    let sizes = tensor::dims(&a).into_iter().zip(tensor::dims(&b));
    let shape: Vec<usize> = sizes.map(|(a, b)| if a == 1 { b } else { a }).collect();
    let (a, device) = download(tensor::expand(a, &shape));
    let (b, _) = download(tensor::expand(b, &shape));
    let values = a.into_iter().zip(b).map(|(a, b)| function(a, b)).collect();
    tensor::ints_from_host(values, &shape, &device)
}

/// The quotient towards zero; division by zero gives zero instead of ending the process.
pub fn divide(a: i64, b: i64) -> i64 {
    if b == 0 { 0 } else { a.wrapping_div(b) }
}

/// Integers brought back into the width of their type, as two's complement does; others unchanged.
pub fn wrapped(x: Tensor, element: Element) -> Tensor {
    if element.kind() != Kind::Int || element.width() == 8 {
        return x;
    }
    let (low, high) = element.range();
    // The span divides 2^64, so that what wrapped before wraps right.
    each(x, |value| value.wrapping_sub(low).rem_euclid(high - low + 1) + low)
}
