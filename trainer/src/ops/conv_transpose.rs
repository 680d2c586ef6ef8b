//! `ConvTranspose` in one to three dimensions.
//!
//! Without padding an axis grows to `(in − 1) · stride + reach`. Padding takes entries away at both
//! ends; `output_padding` and a large `output_shape` add entries at the end that hold the bias.

use burn::backend::Dispatch;
use burn::backend::ops::{ConvTransposeOptions, FloatTensorOps, ModuleOps};

use super::conv::{check_bias, groups, kernel};
use super::window::{Padding, each, spatial, split};
use super::{Built, NodeView, Operator, bounded, pad, tensor};
use crate::graph::{Role, Tensor};

pub const TABLE: &[Operator] = &[Operator::new("ConvTranspose", 1, role, build)];

fn role(place: usize, _: usize) -> Role {
    match place {
        1 => Role::Weight,
        2 => Role::Bias,
        _ => Role::Constant,
    }
}

/// What becomes of an axis once the kernel has been laid out.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Entries taken away at the front.
    front: usize,
    /// Entries that stay.
    kept: usize,
    /// Entries added at the end.
    added: usize,
}

impl Cut {
    fn size(self) -> usize {
        self.kept + self.added
    }
}

struct Geometry {
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// The sizes before padding is taken away.
    full: Vec<usize>,
    cuts: Vec<Cut>,
}

impl Geometry {
    fn read(node: &NodeView<'_>, kernel: &[usize], sizes: &[usize]) -> Result<Self, String> {
        let axes = kernel.len();
        let attributes = &node.attributes;
        let strides = attributes.sizes("strides", axes, 1, 1)?;
        let dilations = attributes.sizes("dilations", axes, 1, 1)?;
        let extra = attributes.sizes("output_padding", axes, 0, 0)?;
        let wanted = attributes.sizes("output_shape", axes, 0, 1)?;
        let padding = Padding::read(node, axes)?;
        let upper = padding == Padding::SameUpper;
        let full: Vec<usize> = (0..axes)
            .map(|a| (sizes[a] - 1) * strides[a] + (kernel[a] - 1) * dilations[a] + 1)
            .collect();
        let cut = |a: usize| {
            let size = match &padding {
                _ if wanted[a] > 0 => wanted[a],
                Padding::Given(pads) => {
                    let (before, after) = pads[a];
                    let size = (full[a] + extra[a]).saturating_sub(before + after);
                    return cut(full[a], before, size);
                }
                _ => sizes[a] * strides[a],
            };
            let (before, _) = split((full[a] + extra[a]).saturating_sub(size), upper);
            cut(full[a], before, size)
        };
        let cuts = (0..axes).map(cut).collect::<Result<_, _>>()?;
        Ok(Self { strides, dilations, full, cuts })
    }

    fn options<const N: usize>(&self, groups: usize) -> ConvTransposeOptions<N> {
        ConvTransposeOptions::new(
            each(&self.strides),
            [0; N],
            [0; N],
            each(&self.dilations),
            groups,
        )
    }
}

fn cut(full: usize, front: usize, size: usize) -> Result<Cut, String> {
    let kept = full.saturating_sub(front).min(size);
    if kept == 0 {
        return Err(format!("padding takes away everything of an axis of {full}"));
    }
    Ok(Cut { front, kept, added: size - kept })
}

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let (x, w) = (node.float(0)?, node.float(1)?);
    let sizes = spatial(x)?;
    let kernel = kernel(node, x, w)?;
    let groups = groups(node)?;
    if w.dims[0] != x.dims[1] || !x.dims[1].is_multiple_of(groups) {
        return Err(format!("input {x}, weight {w} and {groups} groups do not fit together"));
    }
    let geometry = Geometry::read(node, &kernel, sizes)?;
    let channels = w.dims[1].checked_mul(groups).ok_or("too many channels")?;
    check_bias(node, channels)?;
    let shape = |sizes: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
        [x.dims[0], channels].into_iter().chain(sizes).collect()
    };
    bounded(&shape(&mut geometry.full.iter().copied()))?;
    bounded(&shape(&mut geometry.full.iter().zip(&geometry.cuts).map(|(f, c)| *f.max(&c.size()))))?;
    let out = x.reshaped(shape(&mut geometry.cuts.iter().map(|c| c.size())));
    let axes = kernel.len();
    Built::one(out, move |i, context| {
        let (x, w) = (i.take(0), i.take(1));
        let full = match axes {
            1 => Dispatch::conv_transpose1d(x, w, None, geometry.options(groups)),
            2 => Dispatch::conv_transpose2d(x, w, None, geometry.options(groups)),
            _ => Dispatch::conv_transpose3d(x, w, None, geometry.options(groups)),
        };
        let cut = geometry.cuts.iter().enumerate().fold(full, |x, (a, cut)| {
            let x = tensor::narrow(x, a + 2, cut.front, cut.front + cut.kept);
            if cut.added == 0 {
                return x;
            }
            let zero = tensor::from_host(vec![0.0], &vec![1; axes + 2], &context.device);
            pad::filled(x, a + 2, (0, cut.added), &zero)
        });
        with_bias(cut, i.try_take(2), axes)
    })
}

fn with_bias(x: Tensor, bias: Option<Tensor>, axes: usize) -> Tensor {
    let Some(bias) = bias else { return x };
    let mut shape = vec![1; axes + 2];
    shape[1] = tensor::dims(&bias)[0];
    Dispatch::float_add(x, tensor::reshape(bias, &shape))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, text};
    use crate::onnx::write::{int, ints};

    /// x = 1 2, taps 1 and 10, stride 2, so 1 10 2 20 without padding; bias 0.5.
    fn line(attributes: Vec<onnx_ir::AttributeProto>) -> Vec<f32> {
        let mut all = vec![ints("strides", &[2])];
        all.extend(attributes);
        Case::new(&[1, 1, 2])
            .floats("w", &[1, 1, 2], &[1.0, 10.0])
            .floats("b", &[1], &[0.5])
            .node("ConvTranspose", &["x", "w", "b"], all)
            .run(&[1.0, 2.0])
    }

    #[test]
    fn padding_takes_away_and_output_padding_adds_the_bias() {
        assert_eq!(line(vec![]), [1.5, 10.5, 2.5, 20.5]);
        assert_eq!(line(vec![ints("pads", &[1, 0])]), [10.5, 2.5, 20.5]);
        assert_eq!(line(vec![ints("output_padding", &[1])]), [1.5, 10.5, 2.5, 20.5, 0.5]);
        assert_eq!(
            line(vec![ints("pads", &[0, 2]), ints("output_padding", &[1])]),
            [1.5, 10.5, 2.5]
        );
    }

    #[test]
    fn an_output_shape_decides_the_padding() {
        let shape = || ints("output_shape", &[3]);
        assert_eq!(line(vec![shape()]), [10.5, 2.5, 20.5]);
        assert_eq!(line(vec![shape(), text("auto_pad", "SAME_UPPER")]), [1.5, 10.5, 2.5]);
        assert_eq!(line(vec![text("auto_pad", "SAME_UPPER")]), [1.5, 10.5, 2.5, 20.5]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[2, 4, 3, 4])
            .random("w", &[4, 3, 2, 3])
            .random("b", &[6])
            .node(
                "ConvTranspose",
                &["x", "w", "b"],
                vec![
                    int("group", 2),
                    ints("strides", &[3, 2]),
                    ints("dilations", &[1, 2]),
                    ints("pads", &[1, 0, 0, 2]),
                    ints("output_padding", &[1, 0]),
                ],
            )
            .check_gradients();
        Case::new(&[2, 2, 5])
            .random("w", &[2, 1, 3])
            .node("ConvTranspose", &["x", "w"], vec![ints("strides", &[2])])
            .check_gradients();
        Case::new(&[1, 2, 2, 3, 2])
            .random("w", &[2, 1, 2, 2, 3])
            .node("ConvTranspose", &["x", "w"], vec![ints("strides", &[1, 2, 1])])
            .check_gradients();
    }

    #[test]
    fn padding_that_takes_everything_is_refused() {
        let text = Case::new(&[1, 1, 2])
            .random("w", &[1, 1, 2])
            .node("ConvTranspose", &["x", "w"], vec![ints("pads", &[2, 1])])
            .refusal();
        assert!(text.contains("takes away everything"), "{text}");
    }
}
