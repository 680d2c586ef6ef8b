//! Arithmetic on integers, which are all computed as `i64`: what their narrower types in the file
//! would do.

use burn::backend::ops::{BoolTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::BoolDType;

use crate::graph::Tensor;
use crate::onnx::{Element, Kind};

/// The quotient towards zero; division by zero gives zero instead of ending the process.
pub fn divide(a: Tensor, b: Tensor) -> Tensor {
    let zero = Dispatch::int_equal_elem(b.clone(), Scalar::Int(0), BoolDType::Native);
    let safe = Dispatch::int_mask_fill(b, zero.clone(), Scalar::Int(1));
    let quotient = Dispatch::int_div(a, safe);
    let shape = super::tensor::dims(&quotient);
    let zero = Dispatch::bool_expand(zero, shape.into());
    Dispatch::int_mask_fill(quotient, zero, Scalar::Int(0))
}

/// Integers brought back into the width of their type, as two's complement does; others unchanged.
pub fn wrapped(x: Tensor, element: Element) -> Tensor {
    if element.kind() != Kind::Int || element.width() == 8 {
        return x;
    }
    let (low, high) = element.range();
    let span = Scalar::Int(high - low + 1);
    // Twice, because the largest 64-bit integers have to be brought near before `low` comes off.
    let near = Dispatch::int_remainder_scalar(x, span);
    let shifted = Dispatch::int_sub_scalar(near, Scalar::Int(low));
    Dispatch::int_add_scalar(Dispatch::int_remainder_scalar(shifted, span), Scalar::Int(low))
}
