//! What a frame is like, in two numbers, and what a model made of it: one count of a sketch.
//!
//! At most [`GRID`] × [`GRID`] pixels are looked at, evenly over the frame, so the cost has a bound
//! whatever the frame's size. Grey is the plain mean of red, green and blue (not the luma of
//! [`crate::preprocess`]: every channel that fails shows). Sums are of integers, so that a trainer
//! and a device of another processor count the same frame into the same bins.

use fleetloop_protocol::sketch::Observation;

use crate::picture::Frame;
use crate::postprocess::Classification;

/// The most rows, and columns, that are looked at.
const GRID: usize = 64;

/// The largest deviation of values from 0 to 255: half black, half white.
const LARGEST_DEVIATION: f64 = 127.5;

/// A frame in two numbers from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputStatistics {
    /// The mean of its pixels over 255.
    pub brightness: f32,
    /// Their standard deviation over 127.5.
    pub contrast: f32,
}

impl InputStatistics {
    /// The statistics of `frame`.
    pub fn of(frame: &Frame) -> Self {
        let channels = frame.channels().count();
        let row_len = frame.width() as usize * channels;
        let step = |side: u32| (side as usize).div_ceil(GRID);
        let (row_step, column_step) = (step(frame.height()), step(frame.width()) * channels);
        let (mut count, mut sum, mut squares) = (0u64, 0u64, 0u64);
        // Half a step in, so that the borders weigh no more than the middle.
        let rows = frame.pixels().chunks_exact(row_len).skip(row_step / 2).step_by(row_step);
        for row in rows {
            let first = column_step / channels / 2 * channels;
            for pixel in row[first..].chunks(column_step) {
                let value: u64 = pixel[..channels].iter().map(|v| u64::from(*v)).sum();
                count += 1;
                sum += value;
                squares += value * value;
            }
        }
        // At most 4096 pixels of at most 765: nothing here comes near 2^53.
        let (n, scale) = (count as f64, channels as f64);
        let mean = sum as f64 / n / scale;
        let variance = (count * squares - sum * sum) as f64 / (n * n) / (scale * scale);
        Self {
            brightness: (mean / 255.0) as f32,
            contrast: (variance.sqrt() / LARGEST_DEVIATION).min(1.0) as f32,
        }
    }
}

/// What a sketch counts of a frame whose most probable class of so many is `best`.
pub fn observe(frame: &Frame, classes: usize, best: (usize, f32)) -> Observation {
    let InputStatistics { brightness, contrast } = InputStatistics::of(frame);
    let (class, confidence) = best;
    Observation { classes, class, confidence, brightness, contrast }
}

/// What a sketch counts of a frame and its answer.
pub fn observe_answer(frame: &Frame, answer: &Classification) -> Observation {
    observe(frame, answer.probabilities().len(), answer.best())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Channels;

    fn frame(width: u32, height: u32, channels: Channels, pixel: impl Fn(u32, u32) -> u8) -> Frame {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let pixels = pixels.flat_map(|(x, y)| vec![pixel(x, y); channels.count()]).collect();
        Frame::new(width, height, channels, pixels).unwrap()
    }

    fn statistics(frame: &Frame) -> (f32, f32) {
        let InputStatistics { brightness, contrast } = InputStatistics::of(frame);
        (brightness, contrast)
    }

    #[test]
    fn black_white_and_half_of_each_are_the_ends_of_both_scales() {
        for channels in [Channels::Grey, Channels::Rgb] {
            for (width, height) in [(1, 1), (28, 28), (64, 64), (65, 64), (1000, 1000), (4096, 2)] {
                let black = frame(width, height, channels, |_, _| 0);
                let white = frame(width, height, channels, |_, _| 255);
                assert_eq!(statistics(&black), (0.0, 0.0));
                assert_eq!(statistics(&white), (1.0, 0.0));
            }
            let halves = frame(1000, 1000, channels, |x, _| if x < 500 { 0 } else { 255 });
            let (brightness, contrast) = statistics(&halves);
            assert!((brightness - 0.5).abs() < 0.01 && contrast > 0.99, "{brightness} {contrast}");
        }
    }

    #[test]
    fn a_small_frame_is_counted_pixel_by_pixel() {
        let ramp = frame(4, 2, Channels::Grey, |x, y| (10 * x + 100 * y) as u8);
        // Mean 65, variance 2500 + 125.
        let (brightness, contrast) = statistics(&ramp);
        assert!((brightness - 65.0 / 255.0).abs() < 1e-6, "{brightness}");
        assert!((contrast - 2625f32.sqrt() / 127.5).abs() < 1e-6, "{contrast}");
    }

    #[test]
    fn grey_is_the_plain_mean_of_the_three_channels() {
        let red = Frame::new(1, 1, Channels::Rgb, vec![255, 0, 0]).unwrap();
        let blue = Frame::new(1, 1, Channels::Rgb, vec![0, 0, 255]).unwrap();
        assert_eq!(statistics(&red), statistics(&blue));
        assert!((statistics(&red).0 - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn a_large_frame_looks_as_its_small_copy_does() {
        // A slope in both directions and stripes of a width that no step hits alone.
        let light = |x: u32, y: u32, side: u32| {
            let (u, v) = (x as f32 / side as f32, y as f32 / side as f32);
            (120.0 * u + 80.0 * v + 40.0 * (9.0 * u).sin().abs()) as u8
        };
        let small = statistics(&frame(60, 60, Channels::Grey, |x, y| light(x, y, 60)));
        for side in [61, 640, 1024, 1999] {
            let large = statistics(&frame(side, side, Channels::Grey, |x, y| light(x, y, side)));
            assert!((large.0 - small.0).abs() < 0.01, "{side}: {large:?} {small:?}");
            assert!((large.1 - small.1).abs() < 0.01, "{side}: {large:?} {small:?}");
        }
    }
}
