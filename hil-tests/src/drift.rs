//! How the demo's world changes: the light is dimmed and the camera is knocked aside.
//!
//! On a picture of bytes: every column moves to the right and zeros come in on the left, then every
//! value is scaled and rounded. Nothing is drawn at random, so a drifted picture is recognised by
//! its pixels again.

use serde::{Deserialize, Serialize};

/// A change of the world.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// What every value is scaled by, 0 to 1.
    pub brightness: f32,
    /// By how many columns the picture moves to the right.
    pub shift_px: usize,
}

impl Drift {
    /// The drifted picture of `pixels`, row by row, `width` pixels a row.
    pub fn apply(&self, pixels: &[u8], width: usize) -> Vec<u8> {
        let mut out = vec![0; pixels.len()];
        let shift = self.shift_px.min(width);
        for (from, to) in pixels.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            for (value, place) in from[..width - shift].iter().zip(&mut to[shift..]) {
                *place = (f32::from(*value) * self.brightness).round().clamp(0.0, 255.0) as u8;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_dimmed_and_moved_with_zeros_behind_it() {
        let drift = Drift { brightness: 0.35, shift_px: 2 };
        let drifted = drift.apply(&[100, 200, 255, 10, 1, 2, 3, 4], 4);
        assert_eq!(drifted, [0, 0, 35, 70, 0, 0, 0, 1]);
    }

    #[test]
    fn no_drift_changes_nothing_and_a_shift_out_of_the_picture_leaves_it_black() {
        let pixels = [9, 8, 7, 6];
        assert_eq!(Drift { brightness: 1.0, shift_px: 0 }.apply(&pixels, 2), pixels);
        assert_eq!(Drift { brightness: 1.0, shift_px: 9 }.apply(&pixels, 2), [0; 4]);
    }
}
