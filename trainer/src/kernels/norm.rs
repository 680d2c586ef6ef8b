//! Normalisation by a batch's own mean and variance (Ioffe and Szegedy 2015), and its gradients; a
//! ReLU behind it costs nothing more.
//!
//! Values are `[batch, channels, places]`. Sums run over planes in 32 bits, eight or sixteen lanes at
//! a time, and over a channel's planes in 64; the variance is of what is left without the mean.

use pulp::Simd;
use rayon::prelude::*;

use super::pointwise;
use super::simd::{self, Loop};

/// The sizes of what is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub channels: usize,
    /// Elements of a plane.
    pub places: usize,
}

/// What a normalisation was made of.
#[derive(Debug, Clone)]
pub struct Normalisation<T> {
    pub x: T,
    pub scale: T,
    pub bias: T,
    pub mean: T,
    pub variance: T,
    pub epsilon: f64,
    pub rectified: bool,
}

/// A normalised batch.
pub struct Normalised {
    pub output: Vec<f32>,
    pub mean: Vec<f32>,
    /// Of the population.
    pub variance: Vec<f32>,
}

/// The gradients of a normalisation.
pub struct Gradients {
    pub x: Vec<f32>,
    pub scale: Vec<f32>,
    pub bias: Vec<f32>,
}

/// `scale · (x − mean) / √(variance + ε) + bias` for each channel.
pub fn forward(
    extent: Extent,
    x: &[f32],
    scale: &[f32],
    bias: &[f32],
    epsilon: f64,
    rectified: bool,
) -> Normalised {
    let statistics: Vec<(f32, f32)> =
        (0..extent.channels).into_par_iter().map(|channel| extent.statistics(x, channel)).collect();
    let (mean, variance): (Vec<f32>, Vec<f32>) = statistics.into_iter().unzip();
    let lines: Vec<Line> = (0..extent.channels)
        .map(|c| Line::normalising(scale[c], bias[c], mean[c], variance[c], epsilon))
        .collect();
    let mut output = vec![0.0; x.len()];
    let pairs = output.par_chunks_mut(extent.picture()).zip(x.par_chunks(extent.picture()));
    pairs.for_each(|(to, from)| {
        let planes = to.chunks_exact_mut(extent.places).zip(from.chunks_exact(extent.places));
        for (line, (to, from)) in lines.iter().zip(planes) {
            simd::run(Apply { line: *line, rectified, from, to });
        }
    });
    Normalised { output, mean, variance }
}

/// The gradients, given that of the output.
pub fn backward(extent: Extent, of: &Normalisation<&[f32]>, gradient: &[f32]) -> Gradients {
    let Normalisation { x, scale, bias, mean, variance, epsilon, rectified } = *of;
    let lines: Vec<Line> = (0..extent.channels)
        .map(|c| Line::normalising(scale[c], bias[c], mean[c], variance[c], epsilon))
        .collect();
    let sums: Vec<(f64, f64)> = (0..extent.channels)
        .into_par_iter()
        .map(|c| {
            let planes = extent.planes(x, c).zip(extent.planes(gradient, c));
            planes.fold((0.0, 0.0), |sums, (x, gradient)| {
                let (plain, times) =
                    simd::run(Sums { line: lines[c], mean: mean[c], rectified, x, gradient });
                (sums.0 + f64::from(plain), sums.1 + f64::from(times))
            })
        })
        .collect();
    let count = (x.len() / extent.channels) as f64;
    let deviation = |c: usize| (f64::from(variance[c]) + epsilon).sqrt().recip();
    let backs: Vec<Back> = (0..extent.channels)
        .map(|c| {
            let (plain, times) = sums[c];
            let factor = f64::from(scale[c]) * deviation(c);
            // dx = factor · (g − mean(g) − x̂ · mean(g · x̂)), as a line in g and x.
            let slope = -factor * times * deviation(c).powi(2) / count;
            let offset = -factor * plain / count - slope * f64::from(mean[c]);
            Back { factor: factor as f32, slope: slope as f32, offset: offset as f32 }
        })
        .collect();
    let mut out = vec![0.0; x.len()];
    let picture = extent.picture();
    let parts =
        out.par_chunks_mut(picture).zip(x.par_chunks(picture)).zip(gradient.par_chunks(picture));
    parts.for_each(|((to, x), gradient)| {
        let planes = to
            .chunks_exact_mut(extent.places)
            .zip(x.chunks_exact(extent.places))
            .zip(gradient.chunks_exact(extent.places));
        for (channel, ((to, x), gradient)) in planes.enumerate() {
            let (line, back) = (lines[channel], backs[channel]);
            simd::run(Spread { line, back, rectified, x, gradient, to });
        }
    });
    Gradients {
        x: out,
        scale: (0..extent.channels).map(|c| (sums[c].1 * deviation(c)) as f32).collect(),
        bias: sums.iter().map(|(plain, _)| *plain as f32).collect(),
    }
}

impl Extent {
    fn picture(&self) -> usize {
        self.channels * self.places
    }

    fn planes<'a>(&self, x: &'a [f32], channel: usize) -> impl Iterator<Item = &'a [f32]> {
        x.chunks_exact(self.places).skip(channel).step_by(self.channels)
    }

    fn statistics(&self, x: &[f32], channel: usize) -> (f32, f32) {
        let count = (x.len() / self.channels) as f64;
        let sum = |mean: f32, power: Power| -> f64 {
            self.planes(x, channel).map(|x| f64::from(simd::run(Moment { x, mean, power }))).sum()
        };
        let mean = (sum(0.0, Power::One) / count) as f32;
        (mean, (sum(mean, Power::Two) / count) as f32)
    }
}

/// `factor · x + offset`.
#[derive(Debug, Clone, Copy)]
struct Line {
    factor: f32,
    offset: f32,
}

impl Line {
    fn normalising(scale: f32, bias: f32, mean: f32, variance: f32, epsilon: f64) -> Self {
        let factor = f64::from(scale) / (f64::from(variance) + epsilon).sqrt();
        let offset = f64::from(bias) - f64::from(mean) * factor;
        Self { factor: factor as f32, offset: offset as f32 }
    }
}

/// `factor · g + slope · x + offset`.
#[derive(Debug, Clone, Copy)]
struct Back {
    factor: f32,
    slope: f32,
    offset: f32,
}

#[derive(Clone, Copy)]
enum Power {
    One,
    Two,
}

/// The sum of `(x − mean)` to some power.
struct Moment<'a> {
    x: &'a [f32],
    mean: f32,
    power: Power,
}

impl Loop for Moment<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd, const H: usize, const R: usize, const C: usize>(self, simd: S) -> f32 {
        let (vectors, rest) = S::as_simd_f32s(self.x);
        let mean = simd.splat_f32s(self.mean);
        let mut sums = [simd.splat_f32s(0.0); 4];
        let (fours, last) = vectors.as_chunks::<4>();
        let mut total: f32 = 0.0;
        match self.power {
            Power::One => {
                for four in fours {
                    for (sum, x) in sums.iter_mut().zip(four) {
                        *sum = simd.add_f32s(*sum, *x);
                    }
                }
                for x in last {
                    sums[0] = simd.add_f32s(sums[0], *x);
                }
                total += rest.iter().sum::<f32>();
            }
            Power::Two => {
                for four in fours {
                    for (sum, x) in sums.iter_mut().zip(four) {
                        let x = simd.sub_f32s(*x, mean);
                        *sum = simd.mul_add_e_f32s(x, x, *sum);
                    }
                }
                for x in last {
                    let x = simd.sub_f32s(*x, mean);
                    sums[0] = simd.mul_add_e_f32s(x, x, sums[0]);
                }
                total += rest.iter().map(|x| (x - self.mean).powi(2)).sum::<f32>();
            }
        }
        let halves = [simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3])];
        total + simd.reduce_sum_f32s(simd.add_f32s(halves[0], halves[1]))
    }
}

/// A line over a plane.
struct Apply<'a> {
    line: Line,
    rectified: bool,
    from: &'a [f32],
    to: &'a mut [f32],
}

impl Loop for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const H: usize, const R: usize, const C: usize>(self, _: S) {
        let Line { factor, offset } = self.line;
        if self.rectified {
            for (to, x) in self.to.iter_mut().zip(self.from) {
                *to = pointwise::rectified(factor * x + offset);
            }
        } else {
            for (to, x) in self.to.iter_mut().zip(self.from) {
                *to = factor * x + offset;
            }
        }
    }
}

/// The sums of the gradient, and of the gradient times `x − mean`.
struct Sums<'a> {
    line: Line,
    mean: f32,
    rectified: bool,
    x: &'a [f32],
    gradient: &'a [f32],
}

impl Loop for Sums<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<S: Simd, const H: usize, const R: usize, const C: usize>(self, simd: S) -> (f32, f32) {
        let (xs, x_rest) = S::as_simd_f32s(self.x);
        let (gradients, gradient_rest) = S::as_simd_f32s(self.gradient);
        let zero = simd.splat_f32s(0.0);
        let (mean, factor) = (simd.splat_f32s(self.mean), simd.splat_f32s(self.line.factor));
        let offset = simd.splat_f32s(self.line.offset);
        let (mut plain, mut times) = ([zero; 2], [zero; 2]);
        for (place, (x, gradient)) in xs.iter().zip(gradients).enumerate() {
            let gradient = if self.rectified {
                let open = simd.greater_than_f32s(simd.mul_add_e_f32s(factor, *x, offset), zero);
                simd.select_f32s(open, *gradient, zero)
            } else {
                *gradient
            };
            let side = place % 2;
            plain[side] = simd.add_f32s(plain[side], gradient);
            times[side] = simd.mul_add_e_f32s(gradient, simd.sub_f32s(*x, mean), times[side]);
        }
        let mut sums = (
            simd.reduce_sum_f32s(simd.add_f32s(plain[0], plain[1])),
            simd.reduce_sum_f32s(simd.add_f32s(times[0], times[1])),
        );
        for (x, gradient) in x_rest.iter().zip(gradient_rest) {
            if !self.rectified || self.line.factor * x + self.line.offset > 0.0 {
                sums.0 += gradient;
                sums.1 += gradient * (x - self.mean);
            }
        }
        sums
    }
}

/// The gradient of a plane.
struct Spread<'a> {
    line: Line,
    back: Back,
    rectified: bool,
    x: &'a [f32],
    gradient: &'a [f32],
    to: &'a mut [f32],
}

impl Loop for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const H: usize, const R: usize, const C: usize>(self, _: S) {
        let Back { factor, slope, offset } = self.back;
        let values = self.to.iter_mut().zip(self.x).zip(self.gradient);
        if self.rectified {
            for ((to, x), gradient) in values {
                let open = self.line.factor * x + self.line.offset > 0.0;
                let gradient = if open { *gradient } else { 0.0 };
                *to = factor * gradient + (slope * x + offset);
            }
        } else {
            for ((to, x), gradient) in values {
                *to = factor * gradient + (slope * x + offset);
            }
        }
    }
}
