//! `AveragePool` and `LpPool` over one to three dimensions, and what all pooling shares.
//!
//! An average over a box is an average along one axis after another; burn's own pooling does what
//! it can (even padding, no dilation, whole windows). With `ceil_mode` a window has to reach into
//! the data, as ONNX says, and what lies behind the padding is never counted.

use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::BoolDType;

use super::taps::{Addend, Taps};
use super::window::{Window, each, spatial};
use super::{Built, NodeView, Operator, bounded, no_parameters};
use crate::graph::{Fact, Tensor};

pub const TABLE: &[Operator] = &[
    Operator::new("AveragePool", 1, no_parameters, average),
    Operator::new("LpPool", 2, no_parameters, lp),
];

/// The window of a pooling node.
pub fn window(node: &NodeView<'_>, x: &Fact) -> Result<Window, String> {
    let kernel = node.attributes.sizes("kernel_shape", spatial(x)?.len(), 0, 1)?;
    if kernel.contains(&0) {
        return Err("kernel_shape is missing".into());
    }
    let mut window = Window::read(node, kernel, x)?;
    window.ceil = node.attributes.flag("ceil_mode", false)?;
    Ok(window)
}

/// The fact of the pooled value; refuses sizes that are too large on the way there.
pub fn pooled(x: &Fact, window: &Window) -> Result<Fact, String> {
    let mut dims = x.dims[..2].to_vec();
    dims.extend(window.output(x)?);
    let most: Vec<usize> = dims.iter().zip(&x.dims).map(|(a, b)| *a.max(b)).collect();
    bounded(&most)?;
    Ok(x.reshaped(dims))
}

/// Refuses a window in which nothing but padding lies.
pub fn nothing_but_padding(axis: usize) -> String {
    format!("a window along axis {axis} holds nothing but padding")
}

/// How the entries of a window are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weigh {
    /// Each is one.
    Sum,
    /// By the number of entries that are data.
    Data,
    /// By the number of entries that are data or padding.
    Padded,
}

/// The sums along each axis that make the sum over the window.
fn sums(x: &Fact, window: &Window, out: &Fact, weigh: Weigh) -> Result<Vec<Taps>, String> {
    (0..window.kernel.len())
        .map(|a| {
            let (size, axis) = (x.dims[a + 2] as i64, a + 2);
            let padded = -(window.pads[a].0 as i64)..size + window.pads[a].1 as i64;
            let places = window.places(a, out.dims[axis])?;
            let mut counts = vec![0u32; out.dims[axis]];
            for tap in &places {
                for (count, place) in counts.iter_mut().zip(tap) {
                    *count += u32::from(match weigh {
                        Weigh::Padded => padded.contains(place),
                        _ => (0..size).contains(place),
                    });
                }
            }
            if counts.contains(&0) && weigh != Weigh::Sum {
                return Err(nothing_but_padding(axis));
            }
            let weight = |(place, count): (&i64, &u32)| match weigh {
                _ if !(0..size).contains(place) => 0.0,
                Weigh::Sum => 1.0,
                _ => 1.0 / *count as f32,
            };
            let tap = |tap: Vec<i64>| Addend {
                weight: tap.iter().zip(&counts).map(weight).collect(),
                index: tap.into_iter().map(|p| p.clamp(0, size - 1)).collect(),
            };
            Ok(Taps::new(axis, places.into_iter().map(tap).collect()))
        })
        .collect()
}

fn average(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let window = window(node, x)?;
    let count_pads = node.attributes.flag("count_include_pad", false)?;
    let out = pooled(x, &window)?;
    let weigh = if count_pads { Weigh::Padded } else { Weigh::Data };
    let whole = Window { ceil: false, ..window.clone() };
    let plain = whole.output(x)? == out.dims[2..] && window.dilations.iter().all(|d| *d == 1);
    match (window.even_pads(), window.kernel.len()) {
        (Some(pads), 1) if plain => Built::one(out, move |i, _| {
            let Window { kernel: k, strides: s, .. } = &window;
            Dispatch::avg_pool1d(i.take(0), k[0], s[0], pads[0], count_pads, false)
        }),
        (Some(pads), 2) if plain => Built::one(out, move |i, _| {
            let (k, s) = (each(&window.kernel), each(&window.strides));
            Dispatch::avg_pool2d(i.take(0), k, s, each(&pads), count_pads, false)
        }),
        _ => {
            let sums = sums(x, &window, &out, weigh)?;
            Built::one(out, move |i, context| {
                sums.iter().fold(i.take(0), |x, sum| sum.apply(x, &context.device))
            })
        }
    }
}

fn lp(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.float(0)?;
    let window = window(node, x)?;
    let power = power(node)?;
    let out = pooled(x, &window)?;
    let sums = sums(x, &window, &out, Weigh::Sum)?;
    Built::one(out, move |i, context| {
        norm(i.take(0), power, |x| sums.iter().fold(x, |x, sum| sum.apply(x, &context.device)))
    })
}

/// The exponent of an Lp norm.
pub fn power(node: &NodeView<'_>) -> Result<f64, String> {
    match node.attributes.int("p", 2)? {
        p @ 1..=64 => Ok(p as f64),
        p => Err(format!("p is {p}, 1 to 64 is needed")),
    }
}

/// The p-th root of a sum of p-th powers. Where all addends are zero, so is the gradient.
pub fn norm(x: Tensor, p: f64, sum: impl FnOnce(Tensor) -> Tensor) -> Tensor {
    let size = Dispatch::float_abs(x);
    if p == 1.0 {
        return sum(size);
    }
    let total = sum(Dispatch::float_powf_scalar(size, Scalar::Float(p)));
    let none = Dispatch::float_equal_elem(total.clone(), Scalar::Float(0.0), BoolDType::Native);
    let safe = Dispatch::float_mask_fill(total, none.clone(), Scalar::Float(1.0));
    let root = Dispatch::float_powf_scalar(safe, Scalar::Float(1.0 / p));
    Dispatch::float_mask_fill(root, none, Scalar::Float(0.0))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near, sequence, text};
    use crate::onnx::write::{int, ints};

    #[test]
    fn average_counts_padding_only_when_told() {
        let average = |pads: &[i64], count| {
            Case::new(&[1, 1, 2])
                .node(
                    "AveragePool",
                    &["x"],
                    vec![
                        ints("kernel_shape", &[2]),
                        ints("pads", pads),
                        int("count_include_pad", count),
                    ],
                )
                .run(&[2.0, 4.0])
        };
        assert_eq!(average(&[1, 1], 0), [2.0, 3.0, 4.0]);
        assert_eq!(average(&[1, 1], 1), [1.0, 3.0, 2.0]);
        assert_eq!(average(&[0, 1], 0), [3.0, 4.0]);
        assert_eq!(average(&[0, 1], 1), [3.0, 2.0]);
    }

    #[test]
    fn a_rounded_up_window_counts_only_what_is_there() {
        let case = |side, pad| {
            Case::new(&[1, 1, side]).node(
                "AveragePool",
                &["x"],
                vec![
                    ints("kernel_shape", &[3]),
                    ints("strides", &[2]),
                    ints("pads", &[0, pad]),
                    int("ceil_mode", 1),
                    int("count_include_pad", 1),
                ],
            )
        };
        assert_eq!(case(5, 0).run(&sequence(5)), [2.0, 4.0]);
        assert_eq!(case(4, 0).run(&sequence(4)), [2.0, 3.5], "nothing is behind the data");
        near(&case(4, 1).run(&sequence(4)), &[2.0, 7.0 / 3.0], 1e-6);
    }

    #[test]
    fn norms_by_hand() {
        let norm = |p| {
            Case::new(&[1, 1, 4])
                .node(
                    "LpPool",
                    &["x"],
                    vec![ints("kernel_shape", &[2]), ints("strides", &[2]), int("p", p)],
                )
                .run(&[3.0, -4.0, 0.0, 0.0])
        };
        near(&norm(1), &[7.0, 0.0], 1e-6);
        near(&norm(2), &[5.0, 0.0], 1e-5);
        near(&norm(3), &[91f32.cbrt(), 0.0], 1e-5);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let checked = |op: &str, shape: &[usize], attributes| {
            Case::new(shape).node(op, &["x"], attributes).check_gradients();
        };
        for op in ["AveragePool", "LpPool"] {
            let attributes = vec![
                ints("kernel_shape", &[3, 2]),
                ints("strides", &[2, 2]),
                ints("pads", &[1, 0, 1, 0]),
            ];
            checked(op, &[2, 2, 5, 4], attributes);
            checked(op, &[2, 2, 6], vec![ints("kernel_shape", &[2]), ints("strides", &[2])]);
            let attributes = vec![
                ints("kernel_shape", &[2, 2, 3]),
                ints("strides", &[1, 2, 2]),
                text("auto_pad", "SAME_UPPER"),
            ];
            checked(op, &[1, 2, 2, 3, 4], attributes);
            let attributes = vec![
                ints("kernel_shape", &[2, 2]),
                ints("dilations", &[2, 1]),
                ints("strides", &[1, 2]),
                int("ceil_mode", 1),
            ];
            checked(op, &[1, 2, 4, 5], attributes);
        }
    }

    #[test]
    fn a_window_of_padding_alone_has_no_average() {
        let text = Case::new(&[1, 1, 2])
            .node("AveragePool", &["x"], vec![ints("kernel_shape", &[2]), ints("pads", &[2, 0])])
            .refusal();
        assert!(text.contains("nothing but padding"), "{text}");
    }
}
