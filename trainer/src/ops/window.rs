//! The geometry of a sliding window, shared by convolution and pooling.
//!
//! Output size along an axis (ONNX `Conv`, `MaxPool`): `(in + before + after − ((kernel − 1) ·
//! dilation + 1)) / stride + 1`, rounded down, or up with `ceil_mode`.

use super::NodeView;
use crate::graph::Fact;

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

impl Window {
    /// Reads the attributes of a node whose input is `[N, C, spatial…]`.
    pub fn read(node: &NodeView<'_>, kernel: Vec<usize>) -> Result<Self, String> {
        let attributes = &node.attributes;
        let axes = kernel.len();
        if !(1..=2).contains(&axes) {
            return Err(format!("{axes} spatial dimensions are not done (1 and 2 are)"));
        }
        match attributes.text("auto_pad", "NOTSET")? {
            "NOTSET" | "VALID" => {}
            other => {
                return Err(format!("auto_pad {other} is not done; export with explicit pads"));
            }
        }
        let pads = attributes.sizes("pads", 2 * axes, 0, 0)?;
        Ok(Self {
            strides: attributes.sizes("strides", axes, 1, 1)?,
            dilations: attributes.sizes("dilations", axes, 1, 1)?,
            pads: (0..axes).map(|a| (pads[a], pads[a + axes])).collect(),
            ceil: false,
            kernel,
        })
    }

    /// The spatial sizes of the output for an input `[N, C, spatial…]`.
    pub fn output(&self, x: &Fact) -> Result<Vec<usize>, String> {
        if x.rank() != self.kernel.len() + 2 {
            return Err(format!(
                "input of shape {x} does not fit a window of {} dimensions",
                self.kernel.len()
            ));
        }
        (0..self.kernel.len()).map(|a| self.along(a, x.dims[a + 2])).collect()
    }

    fn along(&self, axis: usize, size: usize) -> Result<usize, String> {
        let (before, after) = self.pads[axis];
        let reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
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

    /// Padding that is the same on both sides of each axis.
    pub fn even_pads(&self) -> Result<Vec<usize>, String> {
        self.pads
            .iter()
            .map(|(before, after)| {
                if before == after {
                    Ok(*before)
                } else {
                    Err(format!(
                        "pads of {before} before and {after} after are not done for pooling"
                    ))
                }
            })
            .collect()
    }
}
