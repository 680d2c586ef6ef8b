//! The largest of each window, and the way back of its gradient. What lies in padding is never the
//! largest; a kernel has at most [`MOST_ENTRIES`] entries.

use rayon::prelude::*;

use super::Windows;
use super::simd::{self, Loop};

/// The most entries of a kernel: the place of a maximum is one byte.
pub const MOST_ENTRIES: usize = 256;

/// The place in a kernel before any entry on data was seen.
const NONE: f32 = -1.0;

/// The largest entries and the place of each in its window's kernel.
pub struct Largest {
    pub values: Vec<f32>,
    pub places: Vec<u8>,
}

/// The largest entry of each window of each plane; of equals the first, and NaN before all.
pub fn forward(windows: &Windows, x: &[f32]) -> Largest {
    let [from, to] = windows.areas();
    let planes = x.len() / from;
    let mut values = vec![f32::NEG_INFINITY; planes * to];
    let mut places = vec![0; planes * to];
    let parts = values.par_chunks_mut(to).zip(places.par_chunks_mut(to)).zip(x.par_chunks(from));
    parts.with_min_len(16).for_each_init(
        || vec![NONE; to],
        |entries, ((values, places), x)| {
            entries.fill(NONE);
            simd::run(Plane { windows, x, values, entries });
            for (place, entry) in places.iter_mut().zip(entries) {
                *place = *entry as u8;
            }
        },
    );
    Largest { values, places }
}

/// The gradient of the input.
pub fn backward(windows: &Windows, places: &[u8], gradient: &[f32]) -> Vec<f32> {
    let [to, from] = windows.areas();
    let mut out = vec![0.0; gradient.len() / from * to];
    let parts = out.par_chunks_mut(to).zip(places.par_chunks(from)).zip(gradient.par_chunks(from));
    parts.with_min_len(16).for_each(|((out, places), gradient)| {
        windows.spread(places, gradient, out);
    });
    out
}

impl Windows {
    /// The input's row or column that an entry of the kernel has in a window.
    fn at(&self, axis: usize, window: usize, entry: usize) -> usize {
        (window * self.strides[axis] + entry * self.dilations[axis]).wrapping_sub(self.before[axis])
    }

    /// The windows along an axis in which an entry of the kernel lies on data.
    fn on_data(&self, axis: usize, entry: usize) -> std::ops::Range<usize> {
        let shift = entry * self.dilations[axis];
        let first = self.before[axis].saturating_sub(shift).div_ceil(self.strides[axis]);
        let end = (self.input[axis] + self.before[axis]).saturating_sub(shift);
        let end = end.div_ceil(self.strides[axis]).min(self.output[axis]);
        first.min(end)..end
    }

    fn spread(&self, places: &[u8], gradient: &[f32], out: &mut [f32]) {
        let [kernel_width, width] = [self.kernel[1], self.input[1]];
        let offsets: Vec<usize> = (0..self.taps())
            .map(|entry| {
                let (y, x) = (entry / kernel_width, entry % kernel_width);
                y * self.dilations[0] * width + x * self.dilations[1]
            })
            .collect();
        let rows = gradient.chunks_exact(self.output[1]).zip(places.chunks_exact(self.output[1]));
        let back = self.before[0] * width + self.before[1];
        for (row, (gradient, places)) in rows.enumerate() {
            let start = row * self.strides[0] * width;
            for (column, (gradient, place)) in gradient.iter().zip(places).enumerate() {
                let at = start + column * self.strides[1] + offsets[usize::from(*place)] - back;
                out[at] += gradient;
            }
        }
    }
}

/// One plane. The places are kept as floats while it is worked on: numbers as wide as the values
/// are chosen among in the same way.
struct Plane<'a> {
    windows: &'a Windows,
    x: &'a [f32],
    values: &'a mut [f32],
    entries: &'a mut [f32],
}

impl Loop for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: pulp::Simd, const H: usize, const R: usize, const C: usize>(self, _: S) {
        let Self { windows, x, values, entries } = self;
        let [width, out_width] = [windows.input[1], windows.output[1]];
        for y in 0..windows.kernel[0] {
            for row in windows.on_data(0, y) {
                let from = &x[windows.at(0, row, y) * width..][..width];
                let to = row * out_width..(row + 1) * out_width;
                let (values, entries) = (&mut values[to.clone()], &mut entries[to]);
                for tap in 0..windows.kernel[1] {
                    let columns = windows.on_data(1, tap);
                    if columns.is_empty() {
                        continue;
                    }
                    let entry = (y * windows.kernel[1] + tap) as f32;
                    let from = &from[windows.at(1, columns.start, tap)..];
                    let (values, entries) = (&mut values[columns.clone()], &mut entries[columns]);
                    match windows.strides[1] {
                        1 => larger::<1>(values, entries, from, 1, entry),
                        2 => larger::<2>(values, entries, from, 2, entry),
                        step => larger::<0>(values, entries, from, step, entry),
                    }
                }
            }
        }
    }
}

/// Replaces what is smaller. `STEP` is the step if the compiler is to know it, or zero.
#[inline(always)]
fn larger<const STEP: usize>(
    values: &mut [f32],
    entries: &mut [f32],
    from: &[f32],
    step: usize,
    entry: f32,
) {
    let step = if STEP > 0 { STEP } else { step };
    let from = &from[..(values.len() - 1) * step + 1];
    for (place, (value, old)) in values.iter_mut().zip(entries).enumerate() {
        let x = from[place * step];
        // The first entry on data is the largest so far, however small it is.
        let more = x > *value || x.is_nan() || *old < 0.0;
        *value = if more { x } else { *value };
        *old = if more { entry } else { *old };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Windows = Windows {
        input: [1, 5],
        output: [1, 3],
        kernel: [1, 3],
        strides: [1, 2],
        dilations: [1, 1],
        before: [0, 1],
    };

    #[test]
    fn of_equals_the_first_and_a_value_that_is_no_number_before_all() {
        let largest = forward(&LINE, &[-2.0, -2.0, 1.0, 1.0, 0.0]);
        assert_eq!((largest.values, largest.places), (vec![-2.0, 1.0, 1.0], vec![1, 1, 0]));
        let largest = forward(&LINE, &[3.0, f32::NAN, 1.0, 1.0, 7.0]);
        assert!(largest.values[0].is_nan() && largest.values[1].is_nan());
        assert_eq!(largest.values[2], 7.0);
    }

    #[test]
    fn what_is_infinitely_small_is_larger_than_padding() {
        let x = [f32::NEG_INFINITY; 5];
        let largest = forward(&LINE, &x);
        assert_eq!((largest.values, &largest.places[..]), (vec![x[0]; 3], &[1, 0, 0][..]));
        assert_eq!(backward(&LINE, &largest.places, &[1.0, 2.0, 4.0]), [1.0, 2.0, 0.0, 4.0, 0.0]);
    }

    #[test]
    fn the_gradient_goes_to_the_largest_of_each_window() {
        let largest = forward(&LINE, &[0.0, 5.0, 4.0, 3.0, 9.0]);
        assert_eq!(backward(&LINE, &largest.places, &[1.0, 2.0, 4.0]), [0.0, 3.0, 0.0, 0.0, 4.0]);
    }
}
