//! Functions of one number: roots, powers, rounding, trigonometry.
//!
//! `Abs`, `Neg` and `Sign` take integers too. Halves round to the even neighbour.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::elementwise::ignore_consumed;
use super::{Built, NodeView, Operator, integer, no_parameters};
use crate::graph::Tensor;
use crate::onnx::Kind;

/// One line of the table for a function of floats.
macro_rules! float {
    ($name:literal, $since:literal, $function:ident) => {
        Operator::new($name, $since, no_parameters, |n| build(n, Dispatch::$function, None))
    };
}

/// One line of the table for a function of floats and integers.
macro_rules! number {
    ($name:literal, $since:literal, $function:ident, $ints:expr) => {
        Operator::new($name, $since, no_parameters, |n| build(n, Dispatch::$function, Some($ints)))
    };
}

pub const TABLE: &[Operator] = &[
    number!("Abs", 1, float_abs, i64::wrapping_abs),
    float!("Acos", 7, float_acos),
    float!("Acosh", 9, float_acosh),
    float!("Asin", 7, float_asin),
    float!("Asinh", 9, float_asinh),
    float!("Atan", 7, float_atan),
    float!("Atanh", 9, float_atanh),
    float!("Ceil", 1, float_ceil),
    float!("Cos", 7, float_cos),
    float!("Cosh", 9, float_cosh),
    float!("Erf", 9, float_erf),
    float!("Exp", 1, float_exp),
    float!("Floor", 1, float_floor),
    float!("Log", 1, float_log),
    number!("Neg", 1, float_neg, i64::wrapping_neg),
    float!("Reciprocal", 1, float_recip),
    float!("Round", 11, float_round),
    number!("Sign", 9, float_sign, i64::signum),
    float!("Sin", 7, float_sin),
    float!("Sinh", 9, float_sinh),
    float!("Sqrt", 1, float_sqrt),
    float!("Tan", 7, float_tan),
];

fn build(
    node: &NodeView<'_>,
    floats: fn(Tensor) -> Tensor,
    ints: Option<fn(i64) -> i64>,
) -> Result<Built, String> {
    ignore_consumed(node)?;
    let x = node.input(0)?;
    let element = x.element;
    let out = x.reshaped(x.dims.clone());
    match (x.kind(), ints) {
        (Kind::Float, _) => Built::one(out, move |i, _| floats(i.take(0))),
        (Kind::Int, Some(ints)) => {
            Built::one(out, move |i, _| integer::wrapped(integer::each(i.take(0), ints), element))
        }
        _ => Err(format!("it is not done for {element:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, near};

    fn run(op: &str, x: &[f32]) -> Vec<f32> {
        Case::new(&[1, x.len()]).node(op, &["x"], vec![]).run(x)
    }

    #[test]
    fn halves_round_to_the_even_neighbour() {
        assert_eq!(
            run("Round", &[0.5, 1.5, 2.5, -0.5, -1.5, 0.6]),
            [0.0, 2.0, 2.0, 0.0, -2.0, 1.0]
        );
        assert_eq!(run("Floor", &[-0.5, 1.5]), [-1.0, 1.0]);
        assert_eq!(run("Ceil", &[-0.5, 1.5]), [0.0, 2.0]);
    }

    #[test]
    fn values_by_hand() {
        assert_eq!(run("Sign", &[-2.0, 0.0, 3.0]), [-1.0, 0.0, 1.0]);
        near(&run("Erf", &[0.5, -1.0]), &[0.520_499_9, -0.842_700_8], 1e-6);
        near(&run("Acosh", &[1.5]), &[0.962_423_6], 1e-6);
        near(&run("Atanh", &[0.5]), &[0.549_306_15], 1e-6);
    }

    #[test]
    fn integers_keep_their_type_and_the_smallest_stays_negative() {
        let case = |op: &str| {
            Case::new(&[1]).ints("a", &[-3, 0, i64::MIN]).node(op, &["a"], vec![]).run(&[0.0])
        };
        assert_eq!(case("Abs"), [3.0, 0.0, i64::MIN as f32]);
        assert_eq!(case("Neg"), [3.0, 0.0, i64::MIN as f32]);
        assert_eq!(case("Sign"), [-1.0, 0.0, -1.0]);
        let text = Case::new(&[1]).ints("a", &[1]).node("Sqrt", &["a"], vec![]).refusal();
        assert!(text.contains("I64"), "{text}");
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in [
            "Abs", "Acos", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Erf", "Exp", "Neg",
            "Sin", "Sinh", "Tan",
        ] {
            Case::new(&[2, 5]).node(op, &["x"], vec![]).check_gradients();
        }
        // Where the function is smooth: 1 + e^x.
        for op in ["Acosh", "Log", "Reciprocal", "Sqrt"] {
            Case::new(&[2, 5])
                .floats("one", &[], &[1.0])
                .inner("Exp", &["x"], "e", vec![])
                .inner("Add", &["e", "one"], "p", vec![])
                .node(op, &["p"], vec![])
                .check_gradients();
        }
    }
}
