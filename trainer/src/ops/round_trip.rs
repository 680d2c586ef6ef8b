//! Quantised and dequantised at once: one step on floats whose value is, bit for bit, what the two
//! nodes give, with the gradient of the straight-through estimator.
//!
//! Rounding counts as if it did nothing: the gradient is 1 (the ratio of the two scales, should they
//! differ) where the level is inside the type's range, and 0 where it was cut off (Bengio et al.,
//! arXiv:1308.3432; Jacob et al., arXiv:1712.05877). Scales and zero points do not train. A weight that
//! is stored as integers trains as the float they stand for, and is written back as its level.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::BoolDType;

use super::quantize::{Dequantizer, Quantizer, floats};
use super::{Built, NodeView};
use crate::graph::Tensor;

/// A scale and, if there is one, a zero point.
type Grid = (Tensor, Option<Tensor>);

/// A `QuantizeLinear` and the `DequantizeLinear` behind it.
pub(super) fn of_pair(first: &NodeView<'_>, second: &NodeView<'_>) -> Result<Built, String> {
    let (quantizer, dequantizer) = (Quantizer::read(first)?, Dequantizer::read(second)?);
    let places = first.inputs.len();
    Built::one(dequantizer.fact.clone(), move |i, _| {
        let x = i.take(0);
        let from = (i.take(1), if places > 2 { i.try_take(2) } else { None });
        let to = (i.take(places), i.try_take(places + 1));
        straight_through(x, &quantizer, from, &dequantizer, to)
    })
}

/// The `DequantizeLinear` of a weight, which is given as floats.
pub(super) fn of_weight(quantizer: Quantizer, dequantizer: Dequantizer) -> Result<Built, String> {
    Built::one(dequantizer.fact.clone(), move |i, _| {
        let (x, scale, zero) = (i.take(0), i.take(1), i.try_take(2));
        let grid = (scale.clone(), zero.clone());
        straight_through(x, &quantizer, grid, &dequantizer, (scale, zero))
    })
}

fn straight_through(
    x: Tensor,
    quantizer: &Quantizer,
    from: Grid,
    dequantizer: &Dequantizer,
    to: Grid,
) -> Tensor {
    const TRUTH: BoolDType = BoolDType::Native;
    let ratio =
        Dispatch::float_div(dequantizer.scale(to.0.clone()), quantizer.scale(from.0.clone()));
    let x = floats(x);
    let fixed = Dispatch::float_detach(x.clone());
    let levels = quantizer.levels(fixed, from.0, from.1);
    let (low, high) = quantizer.range();
    let outside = Dispatch::bool_not(Dispatch::bool_and(
        Dispatch::float_greater_equal_elem(levels.clone(), low, TRUTH),
        Dispatch::float_lower_equal_elem(levels.clone(), high, TRUTH),
    ));
    let value = dequantizer.floats(quantizer.saturated(levels), to.0, to.1);
    let none = Scalar::Float(0.0);
    let passed = Dispatch::float_mul(Dispatch::float_mask_fill(x, outside, none), ratio);
    // Nothing is added but the gradient; infinity less infinity, from a scale of zero, is left out.
    let nothing = Dispatch::float_sub(passed.clone(), Dispatch::float_detach(passed));
    let lost = Dispatch::float_is_nan(nothing.clone(), TRUTH);
    Dispatch::float_add(value, Dispatch::float_mask_fill(nothing, lost, none))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::graph::Role;
    use crate::onnx::write::int;

    /// `x` or another value with those scales there and back, for entries of the last axis.
    fn there_and_back(case: Case, name: &str, scales: [&[f32]; 2], zeros: &[i8]) -> Case {
        let count = scales[0].len();
        let axis = || vec![int("axis", -1)];
        case.floats("s", &[count], scales[0])
            .floats("t", &[count], scales[1])
            .levels("z", &[count], zeros)
            .inner("QuantizeLinear", &[name, "s", "z"], "q", axis())
            .inner("DequantizeLinear", &["q", "t", "z"], "d", axis())
    }

    #[test]
    fn the_gradient_passes_inside_the_range_and_nowhere_else() {
        let scales = [&[1.0, 0.5][..]; 2];
        let case = there_and_back(Case::new(&[2, 2]), "x", scales, &[3, -3]).node(
            "Identity",
            &["d"],
            vec![],
        );
        let x = [1.2, 1.2, -200.0, 100.0];
        assert_eq!(case.run(&x), [1.0, 1.0, -131.0, 65.0]);
        assert_eq!(case.gradients(&x, &[1.0, 2.0, 3.0, 4.0]), [[1.0, 2.0, 0.0, 0.0]]);
        // The outermost levels take in what rounds to them.
        let edge = [124.4, 65.2, -131.4, -62.7];
        assert_eq!(case.gradients(&edge, &[1.0; 4]), [[1.0; 4]]);
        let over = [124.6, 65.3, -131.6, -62.8];
        assert_eq!(case.gradients(&over, &[1.0; 4]), [[0.0, 0.0, 0.0, 0.0]]);
    }

    #[test]
    fn another_scale_on_the_way_back_is_a_factor() {
        let case = there_and_back(Case::new(&[1, 2]), "x", [&[1.0, 1.0], &[2.0, 0.5]], &[0, 0])
            .node("Identity", &["d"], vec![]);
        assert_eq!(case.run(&[2.6, 2.6]), [6.0, 1.5]);
        assert_eq!(case.gradients(&[2.6, 2.6], &[1.0, 1.0]), [[2.0, 0.5]]);
    }

    #[test]
    fn what_is_no_number_or_infinite_gives_what_the_two_nodes_give() {
        let scales = [&[1.0, 0.0][..]; 2];
        let pair = there_and_back(Case::new(&[2, 2]), "x", scales, &[0, 0]);
        let x = [f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY];
        let apart = there_and_back(Case::new(&[2, 2]), "x", scales, &[0, 0])
            .inner("Identity", &["q"], "i", vec![])
            .node("DequantizeLinear", &["i", "t", "z"], vec![int("axis", -1)]);
        assert_eq!(pair.node("Identity", &["d"], vec![]).run(&x), apart.run(&x));
    }

    #[test]
    fn levels_that_somebody_else_reads_are_still_computed() {
        let case = there_and_back(Case::new(&[1, 1]), "x", [&[0.5]; 2], &[1])
            .inner("Cast", &["q"], "c", vec![int("to", 1)])
            .node("Add", &["d", "c"], vec![]);
        assert_eq!(case.run(&[1.1]), [1.0 + 3.0]);
        assert_eq!(case.gradients(&[1.1], &[1.0]), [[1.0]]);
    }

    #[test]
    fn a_float_weight_trains_through_its_levels() {
        let case = Case::new(&[1, 2]).floats("w", &[2, 2], &[0.3, 9.0, -0.8, -70.0]);
        let case = there_and_back(case, "w", [&[0.5, 0.5]; 2], &[0, 0]).node(
            "MatMul",
            &["x", "d"],
            vec![],
        );
        assert_eq!(case.roles(), [Role::Weight]);
        assert_eq!(case.run(&[1.0, 2.0]), [0.5 - 2.0, 9.0 - 128.0]);
        let got = case.gradients(&[1.0, 2.0], &[1.0, 10.0]);
        assert_eq!(got[1], [1.0, 10.0, 2.0, 0.0], "one is below the least level");
    }

    #[test]
    fn a_float_weight_whose_levels_are_used_otherwise_does_not_train() {
        let case = Case::new(&[1, 2]).floats("w", &[2, 2], &[0.5; 4]);
        let case = there_and_back(case, "w", [&[0.5, 0.5]; 2], &[0, 0])
            .inner("Cast", &["q"], "c", vec![int("to", 1)])
            .inner("Add", &["c", "d"], "e", vec![])
            .node("MatMul", &["x", "e"], vec![]);
        assert_eq!(case.roles(), []);
    }

    /// x · w, with 8-bit w of scales 0.5 and 0.25.
    fn stored(zeros: &[i8]) -> Case {
        Case::new(&[1, 2])
            .levels("w", &[2, 2], &[3, -4, 127, 6])
            .floats("s", &[2], &[0.5, 0.25])
            .levels("z", &[2], zeros)
            .inner("DequantizeLinear", &["w", "s", "z"], "d", vec![int("axis", 1)])
            .node("MatMul", &["x", "d"], vec![])
    }

    #[test]
    fn a_weight_stored_as_levels_trains_and_is_written_back_as_levels() {
        let case = stored(&[1, -2]);
        assert_eq!(case.roles(), [Role::Weight]);
        assert_eq!(case.run(&[1.0, 2.0]), [1.0 + 126.0, -0.5 + 4.0]);
        assert_eq!(case.gradients(&[1.0, 2.0], &[1.0, 10.0])[1], [1.0, 10.0, 2.0, 20.0]);
        let (same, written) = case.run_changed(&[1.0, 2.0], |_| {});
        assert_eq!((same, written), (case.run(&[1.0, 2.0]), case.run(&[1.0, 2.0])));
        let (trained, written) = case.run_changed(&[1.0, 2.0], |w| {
            w.iter_mut().zip([0.6, -0.3, 100.0, 0.1]).for_each(|(w, by)| *w += by);
        });
        assert_eq!(trained, [1.5 + 126.0, -0.75 + 4.0], "to the nearest level, and no further");
        assert_eq!(written, trained, "what was trained is what is written");
    }

    #[test]
    fn a_weight_whose_scale_is_computed_stays_as_it_is() {
        let case = Case::new(&[1, 2])
            .levels("w", &[2, 2], &[1, 2, 3, 4])
            .inner("ReduceMax", &["x"], "s", vec![int("keepdims", 0)])
            .inner("DequantizeLinear", &["w", "s"], "d", vec![])
            .node("MatMul", &["x", "d"], vec![]);
        assert_eq!(case.roles(), []);
        assert_eq!(case.run(&[1.0, 2.0]), [14.0, 20.0]);
    }
}
