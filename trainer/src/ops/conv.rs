//! `Conv` in one to three dimensions: grouped, strided, dilated, padded in every way.
//!
//! In one and two dimensions without groups it is our own ([`kernels`](crate::kernels)), unless its
//! windows reach absurdly far; otherwise it is burn's.

use burn::backend::Dispatch;
use burn::backend::ops::{ConvOptions, ModuleOps};

use super::window::{Window, each};
use super::{Built, NodeView, Operator, pad};
use crate::graph::limits::MAX_ELEMENTS;
use crate::graph::{Fact, Role};
use crate::kernels::{Geometry, Kernels};
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[Operator::new("Conv", 1, role, build)];

fn role(place: usize, _: usize) -> Role {
    match place {
        1 => Role::Weight,
        2 => Role::Bias,
        _ => Role::Constant,
    }
}

/// Checks the weight of a convolution and returns the shape of its window.
pub fn kernel(node: &NodeView<'_>, x: &Fact, w: &Fact) -> Result<Vec<usize>, String> {
    if x.rank() != w.rank() || x.rank() < 3 {
        return Err(format!("input {x} and weight {w} do not fit together"));
    }
    let kernel = w.dims[2..].to_vec();
    let said = node.attributes.sizes("kernel_shape", kernel.len(), 0, 1)?;
    if said.iter().zip(&kernel).any(|(said, is)| *said != 0 && said != is) {
        return Err(format!("kernel_shape does not fit a weight of shape {w}"));
    }
    Ok(kernel)
}

/// The number of groups.
pub fn groups(node: &NodeView<'_>) -> Result<usize, String> {
    let groups = node.attributes.int("group", 1)?;
    usize::try_from(groups)
        .ok()
        .filter(|g| *g > 0 && *g <= 1 << 31)
        .ok_or_else(|| format!("a group of {groups} makes no sense"))
}

/// Checks the bias, input 2, if there is one.
pub fn check_bias(node: &NodeView<'_>, channels: usize) -> Result<(), String> {
    match node.optional(2) {
        Some(b) if b.dims != [channels] || b.kind() != Kind::Float => {
            Err("the bias does not have one entry for each output channel".into())
        }
        _ => Ok(()),
    }
}

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let (x, w) = (node.float(0)?, node.float(1)?);
    let mut window = Window::read(node, kernel(node, x, w)?, x)?;
    let groups = groups(node)?;
    let spatial = window.output(x)?;
    if w.dims[1].checked_mul(groups) != Some(x.dims[1]) || !w.dims[0].is_multiple_of(groups) {
        return Err(format!("input {x}, weight {w} and {groups} groups do not fit together"));
    }
    check_bias(node, w.dims[0])?;
    let mut dims = vec![x.dims[0], w.dims[0]];
    dims.extend(spatial);
    let out = x.reshaped(dims);
    let ours = (groups == 1 && window.kernel.len() <= 2)
        .then(|| Geometry {
            batch: x.dims[0],
            channels: x.dims[1],
            filters: w.dims[0],
            windows: window.over_planes(x, &out),
        })
        .filter(|geometry| geometry.is_modest(MAX_ELEMENTS));
    if let Some(geometry) = ours {
        return Built::one(out, move |i, _| {
            let (x, w) = (i.take(0), i.take(1));
            match i.try_take(2) {
                Some(bias) => Dispatch::convolve_biased(x, w, bias, geometry),
                None => Dispatch::convolve(x, w, geometry),
            }
        });
    }
    match window.kernel.len() {
        1 => {
            let options = options::<1>(&window, groups);
            Built::one(out, move |i, _| {
                Dispatch::conv1d(i.take(0), i.take(1), i.try_take(2), options.clone())
            })
        }
        2 => {
            let options = options::<2>(&window, groups);
            Built::one(out, move |i, _| {
                Dispatch::conv2d(i.take(0), i.take(1), i.try_take(2), options.clone())
            })
        }
        _ => {
            // burn's weight gradient in three dimensions takes padding for even.
            let pads = std::mem::replace(&mut window.pads, vec![(0, 0); 3]);
            let options = options::<3>(&window, groups);
            Built::one(out, move |i, context| {
                let x = pad::around(i.take(0), &pads, 0.0, &context.device);
                Dispatch::conv3d(x, i.take(1), i.try_take(2), options.clone())
            })
        }
    }
}

fn options<const N: usize>(window: &Window, groups: usize) -> ConvOptions<N> {
    ConvOptions::new_with_padding(
        each(&window.strides),
        each(&window.pads),
        each(&window.dilations),
        groups,
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence, text};
    use crate::onnx::write::{int, ints};

    #[test]
    fn one_dimension_dilated_and_unevenly_padded_by_hand() {
        // x = 1 2 3 4, two zeros before; taps 1 and 10 at distance 2, stride 1.
        let case = Case::new(&[1, 1, 4]).floats("w", &[1, 1, 2], &[1.0, 10.0]).node(
            "Conv",
            &["x", "w"],
            vec![ints("dilations", &[2]), ints("pads", &[2, 0])],
        );
        assert_eq!(case.run(&[1.0, 2.0, 3.0, 4.0]), [10.0, 20.0, 31.0, 42.0]);
    }

    #[test]
    fn two_dimensions_with_stride_and_bias_by_hand() {
        let case = Case::new(&[1, 1, 3, 3])
            .floats("w", &[1, 1, 2, 2], &[1.0, 0.0, 0.0, 1.0])
            .floats("b", &[1], &[0.5])
            .node("Conv", &["x", "w", "b"], vec![ints("strides", &[1, 1])]);
        assert_eq!(case.run(&sequence(9)), [6.5, 8.5, 12.5, 14.5]);
    }

    #[test]
    fn groups_do_not_mix_channels() {
        let case = Case::new(&[1, 2, 1]).floats("w", &[2, 1, 1], &[2.0, 3.0]).node(
            "Conv",
            &["x", "w"],
            vec![int("group", 2)],
        );
        assert_eq!(case.run(&[5.0, 7.0]), [10.0, 21.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[2, 2, 5, 4])
            .random("w", &[4, 1, 3, 2])
            .random("b", &[4])
            .node(
                "Conv",
                &["x", "w", "b"],
                vec![
                    int("group", 2),
                    ints("strides", &[2, 1]),
                    ints("pads", &[1, 0, 2, 1]),
                    ints("dilations", &[1, 2]),
                ],
            )
            .check_gradients();
        Case::new(&[2, 3, 7])
            .random("w", &[2, 3, 3])
            .node("Conv", &["x", "w"], vec![ints("dilations", &[2])])
            .check_gradients();
    }

    #[test]
    fn padding_that_keeps_the_size_puts_the_odd_one_where_it_is_told() {
        let same = |mode: &str| {
            Case::new(&[1, 1, 4])
                .floats("w", &[1, 1, 2], &[1.0, 10.0])
                .node("Conv", &["x", "w"], vec![text("auto_pad", mode)])
                .run(&sequence(4))
        };
        assert_eq!(same("SAME_UPPER"), [21.0, 32.0, 43.0, 4.0]);
        assert_eq!(same("SAME_LOWER"), [10.0, 21.0, 32.0, 43.0]);
        assert_eq!(same("VALID"), [21.0, 32.0, 43.0]);
    }

    #[test]
    fn gradients_match_in_three_dimensions_and_where_the_stride_leaves_a_rest() {
        Case::new(&[1, 2, 3, 4, 4])
            .random("w", &[2, 1, 2, 2, 3])
            .random("b", &[2])
            .node(
                "Conv",
                &["x", "w", "b"],
                vec![
                    int("group", 2),
                    ints("strides", &[1, 2, 2]),
                    ints("pads", &[0, 1, 0, 1, 0, 2]),
                ],
            )
            .check_gradients();
        for mode in ["SAME_UPPER", "SAME_LOWER"] {
            Case::new(&[1, 2, 6, 5])
                .random("w", &[2, 2, 2, 3])
                .node("Conv", &["x", "w"], vec![text("auto_pad", mode), ints("strides", &[3, 2])])
                .check_gradients();
        }
        Case::new(&[1, 1, 9])
            .random("w", &[2, 1, 2])
            .node("Conv", &["x", "w"], vec![ints("strides", &[4]), ints("pads", &[0, 1])])
            .check_gradients();
    }

    #[test]
    fn what_does_not_fit_is_refused_at_load() {
        let text = Case::new(&[1, 3, 4])
            .random("w", &[2, 2, 3])
            .node("Conv", &["x", "w"], vec![])
            .refusal();
        assert!(text.contains("do not fit"), "{text}");
        let text = Case::new(&[1, 2, 2])
            .random("w", &[2, 2, 3])
            .node("Conv", &["x", "w"], vec![])
            .refusal();
        assert!(text.contains("larger than axis"), "{text}");
        let text = Case::new(&[1, 2, 4])
            .random("w", &[2, 2, 3])
            .node("Conv", &["x", "w"], vec![int("colour", 3)])
            .refusal();
        assert!(text.contains("colour"), "{text}");
    }
}
