//! `MaxPool`, `AveragePool`, `GlobalAveragePool`, in one and two dimensions.
//!
//! Padding has to be the same on both sides of an axis. With `ceil_mode` a window has to reach into
//! the data, as ONNX says.

use burn::backend::Dispatch;
use burn::backend::ops::{FloatTensorOps, ModuleOps};

use super::window::Window;
use super::{Built, NodeView, Operator, no_parameters};
use crate::graph::Fact;

pub const TABLE: &[Operator] = &[
    Operator::new("MaxPool", 1, no_parameters, max),
    Operator::new("AveragePool", 7, no_parameters, average),
    Operator::new("GlobalAveragePool", 1, no_parameters, global_average),
];

fn window(node: &NodeView<'_>, x: &Fact) -> Result<Window, String> {
    let axes = x.rank().saturating_sub(2);
    let kernel = node.attributes.sizes("kernel_shape", axes, 0, 1)?;
    if kernel.contains(&0) {
        return Err("kernel_shape is missing".into());
    }
    let mut window = Window::read(node, kernel)?;
    window.ceil = node.attributes.flag("ceil_mode", false)?;
    Ok(window)
}

fn pooled(x: &Fact, window: &Window) -> Result<Fact, String> {
    let mut dims = x.dims[..2].to_vec();
    dims.extend(window.output(x)?);
    Ok(Fact::float(dims))
}

fn max(node: &NodeView<'_>) -> Result<Built, String> {
    node.only_output()?;
    let x = node.float(0)?;
    node.attributes.int("storage_order", 0)?;
    let window = window(node, x)?;
    let pads = window.even_pads()?;
    let out = pooled(x, &window)?;
    let Window { kernel: k, strides: s, dilations: d, ceil, .. } = window;
    if k.len() == 1 {
        return Built::one(out, move |i, _| {
            Dispatch::max_pool1d(i.take(0), k[0], s[0], pads[0], d[0], ceil)
        });
    }
    Built::one(out, move |i, _| {
        Dispatch::max_pool2d(
            i.take(0),
            [k[0], k[1]],
            [s[0], s[1]],
            [pads[0], pads[1]],
            [d[0], d[1]],
            ceil,
        )
    })
}

fn average(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let window = window(node, x)?;
    let count_pads = node.attributes.flag("count_include_pad", false)?;
    if window.dilations.iter().any(|d| *d != 1) {
        return Err("dilations are not done for AveragePool".into());
    }
    let whole = Window { ceil: false, ..window.clone() };
    if whole.output(x)? != window.output(x)? {
        return Err(
            "a last window that reaches past the data (ceil_mode) is not done for AveragePool"
                .into(),
        );
    }
    let pads = window.even_pads()?;
    let out = pooled(x, &window)?;
    let Window { kernel: k, strides: s, ceil, .. } = window;
    if k.len() == 1 {
        return Built::one(out, move |i, _| {
            Dispatch::avg_pool1d(i.take(0), k[0], s[0], pads[0], count_pads, ceil)
        });
    }
    Built::one(out, move |i, _| {
        Dispatch::avg_pool2d(
            i.take(0),
            [k[0], k[1]],
            [s[0], s[1]],
            [pads[0], pads[1]],
            count_pads,
            ceil,
        )
    })
}

fn global_average(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let rank = x.rank();
    if rank < 3 {
        return Err(format!("input of shape {x} has no spatial dimensions"));
    }
    let mut dims = x.dims[..2].to_vec();
    dims.extend(vec![1; rank - 2]);
    Built::one(Fact::float(dims), move |i, _| (2..rank).fold(i.take(0), Dispatch::float_mean_dim))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
    use crate::onnx::write::{int, ints};

    #[test]
    fn maximum_by_hand_with_padding_and_ceil() {
        let case = Case::new(&[1, 1, 3, 3]).node(
            "MaxPool",
            &["x"],
            vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])],
        );
        assert_eq!(case.run(&sequence(9)), [5.0]);
        let case = Case::new(&[1, 1, 3, 3]).node(
            "MaxPool",
            &["x"],
            vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), int("ceil_mode", 1)],
        );
        assert_eq!(case.run(&sequence(9)), [5.0, 6.0, 8.0, 9.0]);
        let case = Case::new(&[1, 1, 3]).node(
            "MaxPool",
            &["x"],
            vec![ints("kernel_shape", &[3]), ints("pads", &[1, 1])],
        );
        assert_eq!(case.run(&[-3.0, -1.0, -2.0]), [-1.0, -1.0, -1.0]);
    }

    #[test]
    fn average_counts_padding_only_when_told() {
        let average = |count| {
            Case::new(&[1, 1, 2])
                .node(
                    "AveragePool",
                    &["x"],
                    vec![
                        ints("kernel_shape", &[2]),
                        ints("pads", &[1, 1]),
                        int("count_include_pad", count),
                    ],
                )
                .run(&[2.0, 4.0])
        };
        assert_eq!(average(0), [2.0, 3.0, 4.0]);
        assert_eq!(average(1), [1.0, 3.0, 2.0]);
    }

    #[test]
    fn a_rounded_up_average_is_refused_only_where_it_matters() {
        let case = |side| {
            Case::new(&[1, 1, side]).node(
                "AveragePool",
                &["x"],
                vec![ints("kernel_shape", &[2]), ints("strides", &[2]), int("ceil_mode", 1)],
            )
        };
        assert_eq!(case(4).run(&sequence(4)), [1.5, 3.5]);
        assert!(case(5).refusal().contains("ceil_mode"));
    }

    #[test]
    fn the_promised_size_is_the_computed_one_where_windows_start_in_padding() {
        for (side, kernel, stride, pad) in [(4, 2, 3, 1), (5, 3, 2, 1), (7, 2, 3, 0), (6, 3, 4, 1)]
        {
            let attributes = vec![
                ints("kernel_shape", &[kernel]),
                ints("strides", &[stride]),
                ints("pads", &[pad, pad]),
                int("ceil_mode", 1),
            ];
            Case::new(&[1, 1, side]).node("MaxPool", &["x"], attributes).output_shape();
        }
    }

    #[test]
    fn global_average_by_hand() {
        assert_eq!(
            Case::new(&[1, 2, 2, 2]).node("GlobalAveragePool", &["x"], vec![]).run(&sequence(8)),
            [2.5, 6.5]
        );
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in ["MaxPool", "AveragePool"] {
            Case::new(&[2, 2, 5, 4])
                .node(
                    op,
                    &["x"],
                    vec![
                        ints("kernel_shape", &[3, 2]),
                        ints("strides", &[2, 2]),
                        ints("pads", &[1, 0, 1, 0]),
                    ],
                )
                .check_gradients();
            Case::new(&[2, 2, 6])
                .node(op, &["x"], vec![ints("kernel_shape", &[2]), ints("strides", &[2])])
                .check_gradients();
        }
        Case::new(&[2, 3, 4, 2]).node("GlobalAveragePool", &["x"], vec![]).check_gradients();
    }
}
