//! Random changes of pictures: shift, mirror, brightness.
//!
//! Inputs are already normalised (`(pixel − mean) / deviation`), so "black" is not zero. The value
//! that a black pixel has in each channel fills what a shift uncovers, and brightness scales the
//! distance to it: exactly what a darker or moved picture would have become.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// What may happen to a picture while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// The share of the pictures that are changed at all, 0 to 1.
    pub probability: f32,
    /// The largest shift along each axis, as a share of the side; rounded to whole pixels.
    pub shift: f32,
    /// Whether half of the pictures are mirrored left to right.
    pub flip: bool,
    /// The range of the brightness factor; drawn uniformly in its logarithm.
    pub brightness: [f32; 2],
}

impl Default for Augment {
    fn default() -> Self {
        Self { probability: 0.0, shift: 0.0, flip: false, brightness: [1.0, 1.0] }
    }
}

impl Augment {
    /// Whether nothing ever happens.
    pub fn is_none(&self) -> bool {
        self.probability == 0.0
            || (self.shift == 0.0 && !self.flip && self.brightness == [1.0, 1.0])
    }

    /// Changes one picture of shape `[channels, height, width]` in place.
    pub fn apply(
        &self,
        picture: &mut [f32],
        shape: [usize; 3],
        black: &[f32],
        random: &mut Random,
    ) {
        if random.unit() >= self.probability {
            return;
        }
        let [_, height, width] = shape;
        let mut shift = |side: usize| {
            let reach = (self.shift * side as f32).round() as usize;
            random.below(2 * reach + 1) as i64 - reach as i64
        };
        let (down, right) = (shift(height), shift(width));
        let mirrored = self.flip && random.unit() < 0.5;
        let [low, high] = self.brightness;
        let factor = random.between(low.ln(), high.ln()).exp();
        for (plane, black) in picture.chunks_exact_mut(height * width).zip(black) {
            if down != 0 || right != 0 {
                shifted(plane, width, down, right, *black);
            }
            if mirrored {
                plane.chunks_exact_mut(width).for_each(<[f32]>::reverse);
            }
            if low != high || low != 1.0 {
                plane.iter_mut().for_each(|v| *v = (*v - black) * factor + black);
            }
        }
    }
}

fn shifted(plane: &mut [f32], width: usize, down: i64, right: i64, black: f32) {
    let source = plane.to_vec();
    let height = (source.len() / width) as i64;
    for (at, place) in plane.iter_mut().enumerate() {
        let (y, x) = ((at / width) as i64 - down, (at % width) as i64 - right);
        let inside = (0..height).contains(&y) && (0..width as i64).contains(&x);
        *place = if inside { source[(y * width as i64 + x) as usize] } else { black };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_fills_with_black() {
        let mut plane = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        shifted(&mut plane, 3, 1, -1, -9.0);
        assert_eq!(plane, [-9.0, -9.0, -9.0, 2.0, 3.0, -9.0]);
    }

    #[test]
    fn brightness_scales_the_distance_to_black() {
        let augment = Augment { probability: 1.0, brightness: [0.5, 0.5], ..Augment::default() };
        let mut picture = vec![-1.0, 1.0, 3.0, 7.0];
        augment.apply(&mut picture, [1, 2, 2], &[-1.0], &mut Random::new(1));
        for (got, want) in picture.iter().zip([-1.0, 0.0, 1.0, 3.0]) {
            assert!((got - want).abs() < 1e-6, "{got} instead of {want}");
        }
    }

    #[test]
    fn nothing_chosen_changes_nothing() {
        let mut picture: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let before = picture.clone();
        Augment::default().apply(&mut picture, [3, 2, 2], &[0.0; 3], &mut Random::new(1));
        assert_eq!(picture, before);
    }
}
