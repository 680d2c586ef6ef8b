//! Convolution of planes, and its gradients.

use rayon::prelude::*;

use super::geometry::Geometry;
use super::panels::Left;
use super::product::{Outer, Product};
use super::simd::TILING;

/// The output `[batch, filters, places]` for an input `[batch, channels, plane]` and filters
/// `[filters, channels, taps]`.
pub fn forward(geometry: &Geometry, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let unfolded = geometry.unfolded();
    let depth = unfolded.rows(geometry.channels);
    let left = Left::pack(geometry.filters, depth, *TILING, w);
    let placement = geometry.placement();
    let mut out = vec![0.0; geometry.batch * geometry.filters * placement.plane];
    Product { left: &left, unfolded: &unfolded, placement, bias }.run(x, &mut out);
    out
}

/// The gradient of the input.
pub fn input_gradient(geometry: &Geometry, w: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (channels, taps) = (geometry.channels, geometry.taps());
    let plane = geometry.input[0] * geometry.input[1];
    let mut out = vec![0.0; geometry.batch * channels * plane];
    for phase in geometry.phases() {
        let left = Left::pack_turned(w, channels, taps, &phase.taps, *TILING);
        let (unfolded, placement) = (&phase.unfolded, phase.placement);
        Product { left: &left, unfolded, placement, bias: None }.run(gradient, &mut out);
    }
    out
}

/// The gradient of the filters.
pub fn filter_gradient(geometry: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    Outer { unfolded: &geometry.unfolded(), rows: geometry.filters }.run(gradient, x)
}

/// The gradient of the bias: the sum of each filter's planes.
pub fn bias_gradient(geometry: &Geometry, gradient: &[f32]) -> Vec<f32> {
    let plane = geometry.output[0] * geometry.output[1];
    (0..geometry.filters)
        .into_par_iter()
        .map(|filter| {
            let planes = gradient.chunks_exact(plane).skip(filter).step_by(geometry.filters);
            planes.map(|plane| plane.iter().sum::<f32>()).sum()
        })
        .collect()
}
