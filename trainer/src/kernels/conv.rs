//! Convolution of planes, and its gradients.

use rayon::prelude::*;

use super::geometry::Geometry;
use super::panels::Left;
use super::product::{Outer, Product};
use super::simd::tiling;

/// The output `[batch, filters, places]` for an input `[batch, channels, plane]` and filters
/// `[filters, channels, taps]`.
pub fn forward(geometry: &Geometry, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let unfolded = geometry.unfolded();
    let depth = unfolded.rows(geometry.channels);
    let left = Left::pack(geometry.filters, depth, tiling(), w);
    let placement = geometry.placement();
    let mut out = vec![0.0; geometry.batch * geometry.filters * placement.plane];
    Product { left: &left, unfolded: &unfolded, placement, bias }.run(x, &mut out);
    out
}

/// The gradient of the input.
pub fn input_gradient(geometry: &Geometry, w: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (channels, taps) = (geometry.channels, geometry.windows.taps());
    let [plane, _] = geometry.windows.areas();
    let mut out = vec![0.0; geometry.batch * channels * plane];
    for phase in geometry.phases() {
        let left = Left::pack_turned(w, channels, taps, &phase.taps, tiling());
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
    let [_, plane] = geometry.windows.areas();
    (0..geometry.filters)
        .into_par_iter()
        .map(|filter| {
            let planes = gradient.chunks_exact(plane).skip(filter).step_by(geometry.filters);
            planes.map(|plane| plane.iter().sum::<f32>()).sum()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Windows;
    use super::*;
    use crate::random::Random;

    struct Want {
        output: Vec<f64>,
        input: Vec<f64>,
        filters: Vec<f64>,
    }

    /// Output and gradients by the definition, in 64 bits.
    fn by_definition(g: &Geometry, x: &[f32], w: &[f32], gradient: &[f32]) -> Want {
        let mut output = vec![0.0; gradient.len()];
        let (mut input, mut filters) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        let area = |plane: [usize; 2]| plane[0] * plane[1];
        for o in 0..output.len() {
            let (place, rest) = (o % area(g.windows.output), o / area(g.windows.output));
            let (filter, picture) = (rest % g.filters, rest / g.filters);
            for k in 0..g.channels * g.windows.taps() {
                let (tap, channel) = (k % g.windows.taps(), k / g.windows.taps());
                let at = |axis: usize, place: usize, tap: usize| {
                    (place * g.windows.strides[axis] + tap * g.windows.dilations[axis])
                        .checked_sub(g.windows.before[axis])
                        .filter(|at| *at < g.windows.input[axis])
                };
                let y = at(0, place / g.windows.output[1], tap / g.windows.kernel[1]);
                let across = at(1, place % g.windows.output[1], tap % g.windows.kernel[1]);
                let (Some(y), Some(across)) = (y, across) else { continue };
                let plane = picture * g.channels + channel;
                let i = plane * area(g.windows.input) + y * g.windows.input[1] + across;
                let f = filter * g.channels * g.windows.taps() + k;
                output[o] += f64::from(x[i]) * f64::from(w[f]);
                input[i] += f64::from(gradient[o]) * f64::from(w[f]);
                filters[f] += f64::from(gradient[o]) * f64::from(x[i]);
            }
        }
        Want { output, input, filters }
    }

    fn near(got: &[f32], want: &[f64], of: &Geometry) {
        assert_eq!(got.len(), want.len());
        let size = want.iter().fold(1e-9, |most: f64, v| most.max(v.abs()));
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() <= 1e-5 * size, "{got}, not {want}: {of:?}");
        }
    }

    fn some_geometry(random: &mut Random) -> Geometry {
        let mut pair = |from: usize, below: usize| [(); 2].map(|()| from + random.below(below));
        let (kernel, dilations, strides) = (pair(1, 4), pair(1, 3), pair(1, 3));
        let (before, after, more, sizes) = (pair(0, 4), pair(0, 4), pair(0, 20), pair(1, 40));
        let reach = |a: usize| (kernel[a] - 1) * dilations[a] + 1;
        let input = std::array::from_fn(|a| reach(a) + more[a]);
        let room = |a: usize| input[a] + before[a] + after[a] - reach(a);
        let output = std::array::from_fn(|a| room(a) / strides[a] + 1);
        let [channels, filters] = [sizes[0], 1 + sizes[1] / 3];
        let batch = 1 + random.below(4);
        let windows = Windows { input, output, kernel, strides, dilations, before };
        Geometry { batch, channels, filters, windows }
    }

    /// Input, filters, bias and the output's gradient.
    fn some_values(g: &Geometry, random: &mut Random) -> [Vec<f32>; 4] {
        let area = |plane: [usize; 2]| plane[0] * plane[1];
        [
            g.batch * g.channels * area(g.windows.input),
            g.filters * g.channels * g.windows.taps(),
            g.filters,
            g.batch * g.filters * area(g.windows.output),
        ]
        .map(|count| (0..count).map(|_| random.between(-0.5, 0.5)).collect())
    }

    #[test]
    fn every_geometry_gives_what_the_definition_gives() {
        let mut random = Random::new(1);
        for round in 0..40 {
            let g = some_geometry(&mut random);
            let [x, w, bias, gradient] = some_values(&g, &mut random);
            let mut want = by_definition(&g, &x, &w, &gradient);
            let bias = (round % 2 == 0).then_some(&bias[..]);
            let plane = g.windows.output[0] * g.windows.output[1];
            for (place, output) in want.output.iter_mut().enumerate() {
                *output += bias.map_or(0.0, |bias| f64::from(bias[place / plane % g.filters]));
            }
            near(&forward(&g, &x, &w, bias), &want.output, &g);
            near(&input_gradient(&g, &w, &gradient), &want.input, &g);
            near(&filter_gradient(&g, &x, &gradient), &want.filters, &g);
            let mut sums = vec![0.0; g.filters];
            for (place, value) in gradient.iter().enumerate() {
                sums[place / plane % g.filters] += f64::from(*value);
            }
            near(&bias_gradient(&g, &gradient), &sums, &g);
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let windows = Windows {
            input: [10, 10],
            output: [10, 10],
            kernel: [3, 3],
            strides: [1, 1],
            dilations: [1, 1],
            before: [1, 1],
        };
        let plain = Geometry { batch: 4, channels: 64, filters: 16, windows };
        let sparse = Windows { output: [5, 5], strides: [2, 2], ..windows };
        let wide = Geometry { batch: 7, windows: sparse, ..plain };
        for g in [plain, wide] {
            let [x, w, bias, gradient] = some_values(&g, &mut Random::new(2));
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    [
                        forward(&g, &x, &w, Some(&bias)),
                        input_gradient(&g, &w, &gradient),
                        filter_gradient(&g, &x, &gradient),
                        bias_gradient(&g, &gradient),
                    ]
                })
            };
            assert!([2, 3, 4].into_iter().all(|threads| with(threads) == with(1)), "{g:?}");
        }
    }
}
