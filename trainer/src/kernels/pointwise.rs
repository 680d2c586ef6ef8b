//! ReLU, alone and behind a sum. Its output says where its gradient passes, so that nothing else is
//! kept.

use rayon::prelude::*;

/// Elements that one part of the work takes.
const PART: usize = 1 << 15;

/// What is negative becomes zero.
pub fn rectify(x: &mut [f32]) {
    x.par_chunks_mut(PART).for_each(|x| {
        for x in x {
            *x = rectified(*x);
        }
    });
}

/// `a + b`, and what is negative becomes zero.
pub fn add_rectified(a: &mut [f32], b: &[f32]) {
    a.par_chunks_mut(PART).zip(b.par_chunks(PART)).for_each(|(a, b)| {
        for (a, b) in a.iter_mut().zip(b) {
            *a = rectified(*a + b);
        }
    });
}

/// The gradient where the output is above zero.
pub fn rectified_gradient(output: &[f32], gradient: &mut [f32]) {
    gradient.par_chunks_mut(PART).zip(output.par_chunks(PART)).for_each(|(gradient, output)| {
        for (gradient, output) in gradient.iter_mut().zip(output) {
            *gradient = if *output > 0.0 { *gradient } else { 0.0 };
        }
    });
}

/// `x`, or zero where it is negative; NaN stays what it is.
#[inline(always)]
pub fn rectified(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}
