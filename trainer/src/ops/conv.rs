//! `Conv`: 1-D and 2-D, grouped, strided, dilated, explicitly padded.

use burn::backend::Dispatch;
use burn::backend::ops::{ConvOptions, ModuleOps};

use super::window::Window;
use super::{Built, NodeView, Operator};
use crate::graph::{Fact, Role};

pub const TABLE: &[Operator] = &[Operator::new("Conv", 1, role, build)];

fn role(place: usize, _: usize) -> Role {
    match place {
        1 => Role::Weight,
        2 => Role::Bias,
        _ => Role::Constant,
    }
}

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let (x, w) = (node.float(0)?, node.float(1)?);
    let shape = w.dims.clone();
    if x.rank() != w.rank() || x.rank() < 3 {
        return Err(format!("input {x} and weight {w} do not fit together"));
    }
    let kernel = shape.get(2..).unwrap_or_default().to_vec();
    if kernel.contains(&0)
        || node
            .attributes
            .sizes("kernel_shape", kernel.len(), 0, 1)?
            .iter()
            .zip(&kernel)
            .any(|(said, is)| *said != 0 && said != is)
    {
        return Err(format!("kernel_shape does not fit a weight of shape {w}"));
    }
    let window = Window::read(node, kernel)?;
    let groups = usize::try_from(node.attributes.int("group", 1)?)
        .ok()
        .filter(|g| *g > 0)
        .ok_or("group has to be positive")?;
    let spatial = window.output(x)?;
    if x.dims[1] != shape[1] * groups || !shape[0].is_multiple_of(groups) {
        return Err(format!("input {x}, weight {w} and {groups} groups do not fit together"));
    }
    if node.inputs.len() > 2 && node.optional(2).is_some_and(|b| b.dims != [shape[0]]) {
        return Err("the bias does not have one entry for each output channel".into());
    }
    let mut dims = vec![x.dims[0], shape[0]];
    dims.extend(spatial);
    let out = Fact::float(dims);
    if window.kernel.len() == 1 {
        let options = ConvOptions::new_with_padding(
            [window.strides[0]],
            [window.pads[0]],
            [window.dilations[0]],
            groups,
        );
        return Built::one(out, move |i, _| {
            Dispatch::conv1d(i.take(0), i.take(1), i.try_take(2), options.clone())
        });
    }
    let pair = |v: &[usize]| [v[0], v[1]];
    let options = ConvOptions::new_with_padding(
        pair(&window.strides),
        [window.pads[0], window.pads[1]],
        pair(&window.dilations),
        groups,
    );
    Built::one(out, move |i, _| {
        Dispatch::conv2d(i.take(0), i.take(1), i.try_take(2), options.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
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
