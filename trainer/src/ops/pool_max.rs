//! `MaxPool` over one to three dimensions, of floats and integers, with the places of the maxima.
//!
//! Floats in one and two dimensions without places are our own ([`kernels`](crate::kernels)).
//! Elsewhere a maximum over a box is a maximum along one axis after another. Of equal entries the
//! first in the data's order counts.

use burn::backend::Dispatch;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::tensor::{BoolDType, Device};

use super::pool::{nothing_but_padding, pooled, window};
use super::window::Window;
use super::{Built, NodeView, Operator, no_parameters, tensor};
use crate::graph::{Fact, Tensor};
use crate::kernels::{Kernels, MOST_ENTRIES};
use crate::onnx::{Element, Kind};

pub const TABLE: &[Operator] = &[Operator::new("MaxPool", 1, no_parameters, build)];

/// The entries that are compared along one axis: for each entry of the kernel its place in each
/// window.
#[derive(Debug)]
struct Scan {
    axis: usize,
    candidates: Vec<Vec<i64>>,
}

impl Scan {
    /// Entries in the padding are replaced by the window's first in the data.
    fn new(x: &Fact, window: &Window, out: &Fact, spatial: usize) -> Result<Self, String> {
        let axis = spatial + 2;
        let data = 0..x.dims[axis] as i64;
        let mut candidates = window.places(spatial, out.dims[axis])?;
        for place in 0..out.dims[axis] {
            let first = candidates.iter().map(|c| c[place]).find(|p| data.contains(p));
            let first = first.ok_or_else(|| nothing_but_padding(axis))?;
            for candidate in &mut candidates {
                if !data.contains(&candidate[place]) {
                    candidate[place] = first;
                }
            }
        }
        Ok(Self { axis, candidates })
    }

    /// The largest entry of each window, and its label.
    fn run(
        &self,
        x: &Tensor,
        labels: Option<&Tensor>,
        device: &Device,
    ) -> (Tensor, Option<Tensor>) {
        let mut best: Option<(Tensor, Option<Tensor>)> = None;
        for candidate in &self.candidates {
            let index = tensor::ints_from_host(candidate.clone(), &[candidate.len()], device);
            let pick = |from: &Tensor| tensor::select(from.clone(), self.axis, index.clone());
            let (value, label) = (pick(x), labels.map(pick));
            best = Some(match best {
                None => (value, label),
                Some((old, old_label)) => {
                    let larger = greater(value.clone(), old.clone());
                    let label = label
                        .zip(old_label)
                        .map(|(new, old)| tensor::choose(larger.clone(), new, old));
                    (tensor::choose(larger, value, old), label)
                }
            });
        }
        best.unwrap_or_else(|| unreachable!("a kernel has at least one entry"))
    }
}

fn greater(a: Tensor, b: Tensor) -> Tensor {
    match tensor::kind(&a) {
        Kind::Float => Dispatch::float_greater(a, b, BoolDType::Native),
        _ => Dispatch::int_greater(a, b, BoolDType::Native),
    }
}

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    if x.kind() == Kind::Bool {
        return Err("truth values have no maximum".into());
    }
    let columns_first = node.attributes.flag("storage_order", false)?;
    let window = window(node, x)?;
    let out = pooled(x, &window)?;
    let scans: Vec<Scan> = (0..window.kernel.len())
        .rev()
        .map(|a| Scan::new(x, &window, &out, a))
        .collect::<Result<_, _>>()?;
    if node.outputs.get(1) == Some(&true) {
        return with_places(x, out, scans, columns_first);
    }
    let few = window.kernel.iter().product::<usize>() <= MOST_ENTRIES;
    if few && x.kind() == Kind::Float && window.kernel.len() <= 2 {
        let windows = window.over_planes(x, &out);
        return Built::one(out, move |i, _| Dispatch::largest(i.take(0), windows));
    }
    Built::one(out, move |i, context| {
        scans.iter().fold(i.take(0), |x, scan| scan.run(&x, None, &context.device).0)
    })
}

/// The place of each entry in data of those sizes, where columns may come before rows.
fn places(sizes: &[usize], columns_first: bool) -> Vec<i64> {
    let count: usize = sizes.iter().product();
    let turned = |place: usize| {
        let (mut rest, mut stride, mut turned) = (place, count, 0);
        for size in sizes.iter().rev() {
            stride /= size;
            turned += rest % size * stride;
            rest /= size;
        }
        turned
    };
    (0..count).map(|p| if columns_first { turned(p) } else { p } as i64).collect()
}

fn with_places(
    x: &Fact,
    out: Fact,
    scans: Vec<Scan>,
    columns_first: bool,
) -> Result<Built, String> {
    let dims = x.dims.clone();
    let within = places(&dims[2..], columns_first);
    let pictures = dims[0] * dims[1];
    let starts: Vec<i64> = (0..pictures).map(|p| (p * within.len()) as i64).collect();
    let one_picture: Vec<usize> = [1, 1].iter().chain(&dims[2..]).copied().collect();
    let mut each_picture = vec![1; dims.len()];
    each_picture[..2].copy_from_slice(&dims[..2]);
    let indices = Fact::runtime(Element::I64, out.dims.clone());
    Built::many(vec![out, indices], move |i, context| {
        let device = &context.device;
        let labels = tensor::ints_from_host(within.clone(), &one_picture, device);
        let labels = tensor::expand(labels, &dims);
        let (value, labels) = scans.iter().fold((i.take(0), Some(labels)), |(x, labels), scan| {
            scan.run(&x, labels.as_ref(), device)
        });
        let starts = tensor::ints_from_host(starts.clone(), &each_picture, device);
        let labels = labels.map(|labels| Dispatch::int_add(labels, starts));
        [Some(value), labels].into_iter().flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence, text};
    use crate::onnx::write::{int, ints};

    #[test]
    fn maximum_by_hand_with_padding_and_ceil() {
        let run = |shape: &[usize], x: &[f32], attributes| {
            Case::new(shape).node("MaxPool", &["x"], attributes).run(x)
        };
        let square = || vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
        assert_eq!(run(&[1, 1, 3, 3], &sequence(9), square()), [5.0]);
        let mut up = square();
        up.push(int("ceil_mode", 1));
        assert_eq!(run(&[1, 1, 3, 3], &sequence(9), up), [5.0, 6.0, 8.0, 9.0]);
        let line = |pads: &[i64]| vec![ints("kernel_shape", &[3]), ints("pads", pads)];
        let x = [-3.0, -1.0, -2.0];
        assert_eq!(run(&[1, 1, 3], &x, line(&[1, 1])), [-1.0, -1.0, -1.0]);
        assert_eq!(run(&[1, 1, 3], &x, line(&[2, 0])), [-3.0, -1.0, -1.0]);
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
    fn places_count_rows_or_columns_first() {
        assert_eq!(super::places(&[2, 3], false), (0..6).collect::<Vec<_>>());
        assert_eq!(super::places(&[2, 3], true), [0, 2, 4, 1, 3, 5]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let checked = |shape: &[usize], attributes| {
            Case::new(shape).node("MaxPool", &["x"], attributes).check_gradients();
        };
        let attributes = vec![
            ints("kernel_shape", &[3, 2]),
            ints("strides", &[2, 2]),
            ints("pads", &[1, 0, 1, 0]),
        ];
        checked(&[2, 2, 5, 4], attributes);
        checked(&[2, 2, 6], vec![ints("kernel_shape", &[2]), ints("strides", &[2])]);
        let attributes = vec![
            ints("kernel_shape", &[2, 3]),
            ints("strides", &[1, 2]),
            ints("dilations", &[2, 1]),
            text("auto_pad", "SAME_LOWER"),
        ];
        checked(&[1, 2, 4, 5], attributes);
        let attributes = vec![
            ints("kernel_shape", &[3, 2]),
            ints("strides", &[2, 2]),
            ints("pads", &[0, 1, 2, 0]),
            int("ceil_mode", 1),
        ];
        checked(&[1, 2, 4, 4], attributes);
        let attributes = vec![
            ints("kernel_shape", &[2, 2, 2]),
            ints("strides", &[1, 2, 2]),
            int("ceil_mode", 1),
        ];
        checked(&[1, 2, 3, 3, 4], attributes);
    }

    #[test]
    fn a_window_of_padding_alone_has_no_maximum() {
        let text = Case::new(&[1, 1, 1])
            .node(
                "MaxPool",
                &["x"],
                vec![ints("kernel_shape", &[2]), ints("dilations", &[2]), ints("pads", &[1, 1])],
            )
            .refusal();
        assert!(text.contains("nothing but padding"), "{text}");
    }
}
