//! Interpolation along one axis: which entries make an output entry, and with what weight
//! (ONNX `Resize`).
//!
//! Linear and cubic interpolation weigh an entry by its distance from the coordinate; `antialias`
//! widens that by the factor of the reduction. What lies outside is the entry at the edge, or is
//! left out (`exclude_outside`).

use super::taps::{Addend, Taps};

/// The most addends of all outputs along an axis.
const MAX_ADDENDS: f64 = (1 << 24) as f64;

/// How a place in the output becomes a coordinate in the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    /// `tf_half_pixel_for_nn`.
    HalfPixelForNearest,
    /// A part of the axis, in fractions of it.
    Crop {
        from: f64,
        to: f64,
    },
}

/// Which neighbour is the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    Nearest(Rounding),
    Linear,
    /// With its coefficient `a`.
    Cubic(f64),
}

/// What all axes of a node have in common.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub mode: Mode,
    pub antialias: bool,
    pub exclude_outside: bool,
    /// The value of places outside the input, with [`Coordinates::Crop`].
    pub extrapolation: f32,
}

/// One axis that is resized.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub axis: usize,
    pub size: usize,
    pub out: usize,
    /// Output entries for each input entry.
    pub scale: f64,
    /// The output's size before rounding.
    pub width: f64,
    pub coordinates: Coordinates,
}

impl Line {
    fn coordinate(&self, place: usize) -> f64 {
        let (place, last, width) = (place as f64, (self.size - 1) as f64, self.width);
        let half = (place + 0.5) / self.scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half,
            Coordinates::HalfPixelSymmetric => {
                self.size as f64 / 2.0 * (1.0 - self.out as f64 / width) + half
            }
            Coordinates::PytorchHalfPixel => {
                if self.out > 1 {
                    half
                } else {
                    0.0
                }
            }
            Coordinates::AlignCorners if width == 1.0 => 0.0,
            Coordinates::AlignCorners => place * last / (width - 1.0),
            Coordinates::Asymmetric => place / self.scale,
            Coordinates::HalfPixelForNearest => half + 0.5,
            Coordinates::Crop { from, to } => {
                let step = if width == 1.0 { 0.5 } else { place / (width - 1.0) };
                from * last + step * (to - from) * last
            }
        }
    }

    fn outside(&self, coordinate: f64) -> bool {
        matches!(self.coordinates, Coordinates::Crop { .. })
            && !(0.0..=(self.size - 1) as f64).contains(&coordinate)
    }

    fn clamped(&self, place: f64) -> i64 {
        place.clamp(0.0, (self.size - 1) as f64) as i64
    }

    /// The map along this axis; `None` where it changes nothing.
    pub fn taps(&self, rule: &Rule) -> Result<Option<Taps>, String> {
        let at: Vec<f64> = (0..self.out).map(|place| self.coordinate(place)).collect();
        let any_outside = at.iter().any(|x| self.outside(*x));
        let taps = match rule.mode {
            Mode::Nearest(rounding) => {
                let index: Vec<i64> =
                    at.iter().map(|x| self.clamped(rounded(*x, rounding))).collect();
                if !any_outside {
                    let same = self.out == self.size && index.iter().zip(0..).all(|(a, b)| *a == b);
                    return Ok((!same).then(|| Taps::pick(self.axis, index)));
                }
                vec![Addend {
                    index,
                    weight: at.iter().map(|x| f32::from(!self.outside(*x))).collect(),
                }]
            }
            Mode::Linear => self.weighted(rule, &at, 1.0, |d| (1.0 - d).max(0.0))?,
            Mode::Cubic(a) => self.weighted(rule, &at, 2.0, |d| cubic(d, a))?,
        };
        let unchanged =
            self.out == self.size && at.iter().zip(0..).all(|(x, p)| *x == f64::from(p));
        if unchanged && !any_outside {
            return Ok(None);
        }
        let offset = at.iter().map(|x| if self.outside(*x) { rule.extrapolation } else { 0.0 });
        Ok(Some(Taps::new(self.axis, taps).with_offset(offset.collect())))
    }

    /// For every addend the places and weights, where an entry's weight depends on its distance and
    /// is zero from `support` on.
    fn weighted(
        &self,
        rule: &Rule,
        at: &[f64],
        support: f64,
        weight: impl Fn(f64) -> f64,
    ) -> Result<Vec<Addend>, String> {
        let squeeze = if rule.antialias { self.scale.min(1.0) } else { 1.0 };
        let reach = support / squeeze;
        let addends = (2.0 * reach).floor() + 1.0;
        if addends * self.out as f64 > MAX_ADDENDS {
            return Err(format!("{} outputs of {addends} addends are too many", self.out));
        }
        let mut taps = vec![Addend::default(); addends as usize];
        for x in at {
            let first = (x - reach).ceil();
            let places: Vec<f64> = (0..taps.len()).map(|k| first + k as f64).collect();
            let mut weights: Vec<f64> = places
                .iter()
                .map(|p| {
                    let skipped = rule.exclude_outside && (*p < 0.0 || *p >= self.size as f64);
                    if skipped { 0.0 } else { weight(((p - x) * squeeze).abs()) }
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            if self.outside(*x) {
                weights.fill(0.0);
            } else if sum != 0.0 && (rule.antialias || rule.exclude_outside) {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
            for (tap, (place, weight)) in taps.iter_mut().zip(places.iter().zip(weights)) {
                tap.index.push(self.clamped(*place));
                tap.weight.push(weight as f32);
            }
        }
        Ok(taps)
    }
}

fn rounded(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::PreferFloor => (x - 0.5).ceil(),
        Rounding::PreferCeil => (x + 0.5).floor(),
        Rounding::Floor => x.floor(),
        Rounding::Ceil => x.ceil(),
    }
}

/// R. Keys, Cubic convolution interpolation for digital image processing, 1981, eq. 15, for any `a`.
fn cubic(d: f64, a: f64) -> f64 {
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((d - 5.0) * d + 8.0) * d * a - 4.0 * a
    } else {
        0.0
    }
}
