//! The geometry of a sliding window, shared by convolution and pooling.
//!
//! Output size along an axis (ONNX `Conv`, `MaxPool`): `(in + before + after − ((kernel − 1) ·
//! dilation + 1)) / stride + 1`, rounded down, or up with `ceil_mode`. With `auto_pad` SAME it is
//! `in / stride` rounded up, and the padding follows from it; an odd one is larger behind the data
//! (SAME_UPPER) or before it (SAME_LOWER).

use super::{NodeView, bounded};
use crate::graph::Fact;
use crate::kernels::Windows;

/// The most spatial dimensions.
const MAX_AXES: usize = 3;

/// The most places that the windows along one axis may have together, where each is listed.
const MAX_PLACES: usize = 1 << 24;

/// Padding as a node asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Padding {
    /// Before and after, for each axis.
    Given(Vec<(usize, usize)>),
    /// As much as the output's size needs, the odd one behind the data.
    SameUpper,
    /// As much as the output's size needs, the odd one before the data.
    SameLower,
}

impl Padding {
    /// Reads `auto_pad` and `pads`.
    pub fn read(node: &NodeView<'_>, axes: usize) -> Result<Self, String> {
        let pads = node.attributes.sizes("pads", 2 * axes, 0, 0)?;
        let mode = node.attributes.text("auto_pad", "NOTSET")?;
        if mode != "NOTSET" && pads.iter().any(|p| *p > 0) {
            return Err(format!("auto_pad {mode} and pads exclude each other"));
        }
        match mode {
            "NOTSET" | "VALID" => {
                Ok(Self::Given((0..axes).map(|a| (pads[a], pads[a + axes])).collect()))
            }
            "SAME_UPPER" => Ok(Self::SameUpper),
            "SAME_LOWER" => Ok(Self::SameLower),
            other => Err(format!("there is no auto_pad {other}")),
        }
    }
}

/// Window geometry over the spatial axes.
#[derive(Debug, Clone)]
pub struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    /// Padding before and after, for each axis.
    pub pads: Vec<(usize, usize)>,
    pub ceil: bool,
}

/// The spatial sizes of `[N, C, spatial…]`, one to three of them.
pub fn spatial(x: &Fact) -> Result<&[usize], String> {
    match x.dims.get(2..) {
        Some(sizes) if (1..=MAX_AXES).contains(&sizes.len()) => Ok(sizes),
        _ => Err(format!("input of shape {x} does not have 1 to {MAX_AXES} spatial dimensions")),
    }
}

impl Window {
    /// Reads the attributes of a node whose input is `x`, for a kernel of that shape.
    pub fn read(node: &NodeView<'_>, kernel: Vec<usize>, x: &Fact) -> Result<Self, String> {
        let sizes = spatial(x)?;
        let axes = kernel.len();
        if axes != sizes.len() {
            return Err(format!("input of shape {x} does not fit a window of {axes} dimensions"));
        }
        let mut window = Self {
            strides: node.attributes.sizes("strides", axes, 1, 1)?,
            dilations: node.attributes.sizes("dilations", axes, 1, 1)?,
            pads: Vec::new(),
            ceil: false,
            kernel,
        };
        window.pads = match Padding::read(node, axes)? {
            Padding::Given(pads) => pads,
            same => {
                (0..axes).map(|a| window.same(a, sizes[a], same == Padding::SameUpper)).collect()
            }
        };
        Ok(window)
    }

    /// The padding with which an axis keeps its size but for the stride.
    fn same(&self, axis: usize, size: usize, upper: bool) -> (usize, usize) {
        let covered = (size.div_ceil(self.strides[axis]).max(1) - 1) * self.strides[axis];
        split((covered + self.reach(axis)).saturating_sub(size), upper)
    }

    /// How far a window reaches along an axis.
    pub fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// The spatial sizes of the output for an input `[N, C, spatial…]`.
    pub fn output(&self, x: &Fact) -> Result<Vec<usize>, String> {
        let padded: Vec<usize> = x.dims[..2]
            .iter()
            .copied()
            .chain(x.dims[2..].iter().zip(&self.pads).map(|(d, (b, a))| d + b + a))
            .collect();
        bounded(&padded)?;
        (0..self.kernel.len()).map(|a| self.along(a, x.dims[a + 2])).collect()
    }

    fn along(&self, axis: usize, size: usize) -> Result<usize, String> {
        let (before, after) = self.pads[axis];
        let reach = self.reach(axis);
        let room = (size + before + after).checked_sub(reach).ok_or_else(|| {
            format!("a window of {reach} is larger than axis {axis} of size {size}")
        })?;
        let stride = self.strides[axis];
        if !self.ceil {
            return Ok(room / stride + 1);
        }
        let count = room.div_ceil(stride) + 1;
        // A window that would start in the padding behind the data does not count.
        Ok(if (count - 1) * stride >= size + before { count - 1 } else { count })
    }

    /// For each entry of the kernel along an axis, the place it has in each window; negative in the
    /// padding before the data, at least `size` behind it.
    pub fn places(&self, axis: usize, windows: usize) -> Result<Vec<Vec<i64>>, String> {
        let kernel = self.kernel[axis];
        if kernel.checked_mul(windows).is_none_or(|n| n > MAX_PLACES) {
            return Err(format!(
                "{windows} windows of {kernel} have more than {MAX_PLACES} places"
            ));
        }
        let (stride, dilation) = (self.strides[axis], self.dilations[axis]);
        let before = self.pads[axis].0 as i64;
        let along =
            |t: usize| (0..windows).map(move |w| (w * stride + t * dilation) as i64 - before);
        Ok((0..kernel).map(|t| along(t).collect()).collect())
    }

    /// The same in one or two dimensions from the planes of `x` to those of `out`; in one dimension
    /// planes have height one.
    pub fn over_planes(&self, x: &Fact, out: &Fact) -> Windows {
        let plane = |sizes: &[usize], flat: usize| match *sizes {
            [height, width] => [height, width],
            _ => [flat, sizes[0]],
        };
        let before: Vec<usize> = self.pads.iter().map(|(before, _)| *before).collect();
        Windows {
            input: plane(&x.dims[2..], 1),
            output: plane(&out.dims[2..], 1),
            kernel: plane(&self.kernel, 1),
            strides: plane(&self.strides, 1),
            dilations: plane(&self.dilations, 1),
            before: plane(&before, 0),
        }
    }

    /// Padding that is the same on both sides of each axis and at most half the kernel.
    pub fn even_pads(&self) -> Option<Vec<usize>> {
        let even = |((before, after), kernel): (&(usize, usize), &usize)| {
            (before == after && 2 * before <= *kernel).then_some(*before)
        };
        self.pads.iter().zip(&self.kernel).map(even).collect()
    }
}

/// Padding in two halves, an odd one larger behind the data or before it.
pub fn split(total: usize, upper: bool) -> (usize, usize) {
    let (small, large) = (total / 2, total - total / 2);
    if upper { (small, large) } else { (large, small) }
}

/// The entries of a list for an operation over that many axes.
pub fn each<const N: usize, T: Copy>(list: &[T]) -> [T; N] {
    std::array::from_fn(|axis| list[axis])
}
