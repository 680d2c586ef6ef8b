//! `Cast`, `CastLike`: between floats, integers and truth values.
//!
//! Integers wrap into their new width as in numpy, floats are cut towards zero. A 16-bit float type
//! rounds the values; gradients pass as if it did not.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::{BoolDType, FloatDType, IntDType};

use super::shape::through;
use super::{Built, NodeView, Operator, integer, tensor};
use crate::graph::{Fact, Tensor};
use crate::onnx::{Element, Kind};

pub const TABLE: &[Operator] =
    &[Operator::new("Cast", 6, through, cast), Operator::new("CastLike", 15, through, cast_like)];

fn cast(node: &NodeView<'_>) -> Result<Built, String> {
    let number = node.attributes.optional_int("to")?.ok_or("it does not say to which type")?;
    let to = Element::of(i32::try_from(number).unwrap_or_default())?;
    build(node, to)
}

fn cast_like(node: &NodeView<'_>) -> Result<Built, String> {
    build(node, node.optional(1).ok_or("input 1 is missing")?.element)
}

/// `saturate` and `round_mode` concern 8-bit floats only.
fn build(node: &NodeView<'_>, to: Element) -> Result<Built, String> {
    node.attributes.flag("saturate", true)?;
    node.attributes.text("round_mode", "up")?;
    let x = node.input(0)?;
    Built::one(Fact::runtime(to, x.dims.clone()), move |i, _| converted(i.take(0), to))
}

/// A value of any kind as one of that type.
pub(super) fn converted(x: Tensor, to: Element) -> Tensor {
    const TRUTH: BoolDType = BoolDType::Native;
    match (tensor::kind(&x), to.kind()) {
        (Kind::Float, Kind::Float) => rounded(x, to),
        (Kind::Int, Kind::Float) => rounded(Dispatch::int_into_float(x, FloatDType::F32), to),
        (Kind::Bool, Kind::Float) => Dispatch::bool_into_float(x, FloatDType::F32),
        (Kind::Float, Kind::Int) => {
            integer::wrapped(Dispatch::float_into_int(x, IntDType::I64), to)
        }
        (Kind::Int, Kind::Int) => integer::wrapped(x, to),
        (Kind::Bool, Kind::Int) => tensor::integers(x),
        (Kind::Float, Kind::Bool) => Dispatch::float_not_equal_elem(x, Scalar::Float(0.0), TRUTH),
        (Kind::Int, Kind::Bool) => tensor::truths(x),
        (Kind::Bool, Kind::Bool) => x,
    }
}

/// Rounded to what a 16-bit type holds, by adding a difference that has no gradient.
fn rounded(x: Tensor, to: Element) -> Tensor {
    let narrow = match to {
        Element::F16 => FloatDType::F16,
        Element::Bf16 => FloatDType::BF16,
        _ => return x,
    };
    let fixed = Dispatch::float_detach(x.clone());
    let near = Dispatch::float_cast(Dispatch::float_cast(fixed.clone(), narrow), FloatDType::F32);
    let difference = Dispatch::float_sub(near, fixed);
    // Infinity less infinity: what is infinite or no number stays as it is.
    let none = Dispatch::float_is_nan(difference.clone(), BoolDType::Native);
    Dispatch::float_add(x, Dispatch::float_mask_fill(difference, none, Scalar::Float(0.0)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use crate::graph::Role;
    use crate::onnx::write::int;

    fn cast(x: &[f32], to: &[i64]) -> Vec<f32> {
        let (last, inner) = to.split_last().expect("a type");
        let mut case = Case::new(&[x.len()]);
        let mut from = "x".to_owned();
        for (n, to) in inner.iter().enumerate() {
            let next = format!("v{n}");
            case = case.inner("Cast", &[&from], &next, vec![int("to", *to)]);
            from = next;
        }
        case.node("Cast", &[&from], vec![int("to", *last)]).run(x)
    }

    const FLOAT: i64 = 1;
    const UINT8: i64 = 2;
    const INT8: i64 = 3;
    const BOOL: i64 = 9;
    const FLOAT16: i64 = 10;
    const BFLOAT16: i64 = 16;

    #[test]
    fn floats_are_cut_and_integers_wrap() {
        assert_eq!(cast(&[1.9, -1.9, 0.5], &[7]), [1.0, -1.0, 0.0]);
        assert_eq!(cast(&[127.0, 128.0, 255.0, -129.0], &[INT8]), [127.0, -128.0, -1.0, 127.0]);
        assert_eq!(cast(&[-1.0, 256.0], &[7, UINT8]), [255.0, 0.0]);
        assert_eq!(cast(&[0.0, -0.5, 2.0, f32::NAN], &[BOOL, FLOAT]), [0.0, 1.0, 1.0, 1.0]);
        assert_eq!(cast(&[0.0, 5.0], &[7, BOOL, 6]), [0.0, 1.0]);
    }

    #[test]
    fn the_largest_values_wrap_too() {
        let case = |to| {
            Case::new(&[1]).ints("i", &[i64::MAX, i64::MIN]).node(
                "Cast",
                &["i"],
                vec![int("to", to)],
            )
        };
        assert_eq!(case(INT8).run(&[0.0]), [-1.0, 0.0]);
        assert_eq!(case(12).run(&[0.0]), [4_294_967_295.0, 0.0]);
        assert_eq!(cast(&[1e30, -1e30], &[INT8]), [-1.0, 0.0]);
    }

    #[test]
    fn sixteen_bits_round() {
        let got = cast(&[1.0 + 1.0 / 4096.0, 2049.0, 1e6, f32::INFINITY, 3e-8], &[FLOAT16]);
        assert_eq!(got, [1.0, 2048.0, f32::INFINITY, f32::INFINITY, 5.960_464_5e-8]);
        assert_eq!(cast(&[257.0, 259.0, -1e30], &[BFLOAT16])[..2], [256.0, 260.0]);
        assert!(cast(&[f32::NAN], &[FLOAT16])[0].is_nan());
    }

    #[test]
    fn gradients_pass_through_sixteen_bits_untouched() {
        use super::super::tensor;
        use burn::backend::Dispatch;
        use burn::backend::ops::FloatTensorOps;
        use burn::tensor::{Device, Tensor as Flat};
        let device = Device::flex().autodiff();
        let x = Flat::<1>::from_floats([0.1, 2049.0, 1e6], &device).require_grad();
        let out = super::rounded(x.clone().into_dispatch(), crate::onnx::Element::F16);
        let weights = tensor::from_host(vec![1e-9, 3.0, 0.25], &[3], &device);
        let loss = Flat::<1>::from_dispatch(Dispatch::float_mul(out, weights)).sum();
        let gradient = x.grad(&loss.backward()).expect("a gradient");
        assert_eq!(gradient.into_data().iter::<f32>().collect::<Vec<_>>(), [1e-9, 3.0, 0.25]);
    }

    #[test]
    fn a_weight_keeps_its_role_and_other_types_are_refused() {
        let case = Case::new(&[2, 3])
            .random("w", &[3, 4])
            .inner("Cast", &["w"], "c", vec![int("to", 11)])
            .node("MatMul", &["x", "c"], vec![]);
        assert_eq!(case.roles(), [Role::Weight]);
        case.check_gradients();
        let refused = Case::new(&[2]).node("Cast", &["x"], vec![int("to", 17)]).refusal();
        assert!(refused.contains("data type 17 is not read"), "{refused}");
    }
}
