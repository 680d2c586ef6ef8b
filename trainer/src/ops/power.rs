//! `Pow` and `Mod`.
//!
//! The result of `Pow` has the type of its base. An exponent does not train. A power of integers
//! with a negative exponent is rounded towards zero; a remainder by zero is zero for integers.

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::{FloatDType, IntDType};

use super::elementwise::Operands;
use super::{Built, NodeView, Operator, integer, no_parameters, tensor};
use crate::graph::{Fact, Tensor, at_least_one};
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[
    Operator::new("Mod", 10, no_parameters, modulo),
    Operator::new("Pow", 1, no_parameters, power),
];

/// Exponents up to this size are tried as one number for all.
const LARGEST_FIXED: f32 = 64.0;

fn power(node: &NodeView<'_>) -> Result<Built, String> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let element = a.element;
    let (base, exponent) = (a.kind(), b.kind());
    if base == Kind::Bool || exponent == Kind::Bool {
        return Err(format!("{:?} to the power of {:?} makes no sense", a.element, b.element));
    }
    let operands = Operands::read(node)?;
    let out = Fact::runtime(element, operands.dims.clone());
    if let (Kind::Float, Some([fixed])) = (base, b.floats())
        && fixed.abs() <= LARGEST_FIXED
    {
        node.scalar(1)?;
        let fixed = Scalar::Float(f64::from(*fixed));
        let shape = at_least_one(&operands.dims);
        return Built::one(out, move |i, _| {
            tensor::reshape(Dispatch::float_powf_scalar(i.take(0), fixed), &shape)
        });
    }
    Built::one(out, move |i, _| {
        let (a, b) = operands.take(i);
        if (base, exponent) == (Kind::Int, Kind::Int) {
            return integer::wrapped(integer::pairs(a, b, int_power), element);
        }
        let result = Dispatch::float_powf(as_float(a), as_float(b));
        if base == Kind::Float {
            return result;
        }
        let result = Dispatch::float_into_int(Dispatch::float_trunc(result), IntDType::I64);
        integer::wrapped(result, element)
    })
}

fn as_float(x: Tensor) -> Tensor {
    match tensor::kind(&x) {
        Kind::Int => Dispatch::int_into_float(x, FloatDType::F32),
        _ => x,
    }
}

fn int_power(base: i64, exponent: i64) -> i64 {
    match (base, u64::try_from(exponent)) {
        (_, Ok(mut left)) => {
            let (mut square, mut product) = (base, 1i64);
            while left > 0 {
                if left % 2 == 1 {
                    product = product.wrapping_mul(square);
                }
                square = square.wrapping_mul(square);
                left /= 2;
            }
            product
        }
        (1, _) => 1,
        (-1, _) => 1 - 2 * (exponent & 1),
        _ => 0,
    }
}

fn modulo(node: &NodeView<'_>) -> Result<Built, String> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let element = a.element;
    if a.kind() != b.kind() || a.kind() == Kind::Bool {
        return Err(format!("{:?} and {:?} do not go together", a.element, b.element));
    }
    let sign_of_dividend = node.attributes.flag("fmod", false)?;
    let operands = Operands::read(node)?;
    let out = Fact::runtime(element, operands.dims.clone());
    Built::one(out, move |i, _| {
        let (a, b) = operands.take(i);
        match (element.kind(), sign_of_dividend) {
            (Kind::Float, true) => float_fmod(a, b),
            (Kind::Float, false) => Dispatch::float_remainder(a, b),
            (_, true) => integer::pairs(a, b, |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) }),
            (_, false) => integer::pairs(a, b, floored_remainder),
        }
    })
}

/// The remainder with the sign of the dividend: that of the magnitudes, whose signs agree.
fn float_fmod(a: Tensor, b: Tensor) -> Tensor {
    let sign = Dispatch::float_sign(a.clone());
    let rest = Dispatch::float_remainder(Dispatch::float_abs(a), Dispatch::float_abs(b));
    Dispatch::float_mul(sign, rest)
}

fn floored_remainder(a: i64, b: i64) -> i64 {
    if b == 0 {
        return 0;
    }
    let rest = a.wrapping_rem(b);
    if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};
    use super::{floored_remainder, int_power};
    use crate::onnx::write::int;

    #[test]
    fn negative_bases_have_whole_powers() {
        let run = |exponent: &[f32], x: &[f32]| {
            Case::new(&[1, 2])
                .floats("e", &[exponent.len()], exponent)
                .node("Pow", &["x", "e"], vec![])
                .run(x)
        };
        near(&run(&[3.0], &[-2.0, 0.5]), &[-8.0, 0.125], 1e-6);
        near(&run(&[2.0, 0.5], &[-3.0, 16.0]), &[9.0, 4.0], 1e-5);
        near(&run(&[-1.0], &[-2.0, 4.0]), &[-0.5, 0.25], 1e-6);
    }

    #[test]
    fn powers_of_integers_by_hand() {
        assert_eq!(int_power(-3, 3), -27);
        assert_eq!(int_power(5, 0), 1);
        assert_eq!(int_power(2, -1), 0);
        assert_eq!(int_power(-1, -3), -1);
        assert_eq!(int_power(-1, i64::MIN), 1);
        assert_eq!(int_power(3, i64::MAX), 3i64.wrapping_mul(int_power(3, i64::MAX - 1)));
    }

    #[test]
    fn a_remainder_has_the_sign_of_the_divisor_unless_told_otherwise() {
        let run = |fmod| {
            Case::new(&[1, 3])
                .floats("w", &[3], &[3.0, -3.0, 3.0])
                .node("Mod", &["x", "w"], vec![int("fmod", fmod)])
                .run(&[-4.0, 4.0, 4.5])
        };
        assert_eq!(run(0), [2.0, -2.0, 1.5]);
        assert_eq!(run(1), [-1.0, 1.0, 1.5]);
        assert_eq!(floored_remainder(-4, 3), 2);
        assert_eq!(floored_remainder(4, -3), -2);
        assert_eq!(floored_remainder(i64::MIN, -1), 0);
        assert_eq!(floored_remainder(4, 0), 0);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for exponent in [3.0, 2.0, -1.0, 0.5] {
            Case::new(&[2, 3])
                .floats("e", &[], &[exponent])
                .inner("Exp", &["x"], "p", vec![])
                .node("Pow", &["p", "e"], vec![])
                .check_gradients();
        }
        Case::new(&[2, 3])
            .floats("e", &[3], &[2.0, 3.0, 1.0])
            .node("Pow", &["x", "e"], vec![])
            .check_gradients();
        Case::new(&[2, 3])
            .floats("b", &[3], &[0.5, 2.0, 3.0])
            .node("Pow", &["b", "x"], vec![])
            .check_gradients();
        Case::new(&[2, 3])
            .inner("ArgMax", &["x"], "e", vec![int("select_last_index", 1)])
            .node("Pow", &["x", "e"], vec![])
            .check_gradients();
        for fmod in [0, 1] {
            Case::new(&[2, 3])
                .floats("w", &[3], &[0.5, -0.7, 0.3])
                .node("Mod", &["x", "w"], vec![int("fmod", fmod)])
                .check_gradients();
        }
    }
}
