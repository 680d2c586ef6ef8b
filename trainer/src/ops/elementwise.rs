//! `Add`, `Sub`, `Mul`, `Div`, with numpy's broadcasting, over floats and integers.
//!
//! Before operator set 7 the second operand's axes lie under those of the first that attribute
//! `axis` says, and only where `broadcast` is set.
//!
//! A weight that is added trains as a bias and one that multiplies as a scale, unless it is a
//! single number (the constants of a written-out activation); subtracted and dividing ones are
//! taken for fixed normalisation and do not train. Integers divide towards zero and stay within
//! the width of their type.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{Built, Inputs, NodeView, Operator, axis, broadcast, integer, no_parameters, tensor};
use crate::graph::{Fact, Role, Tensor};
use crate::kernels::Kernels;
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[
    Operator::new("Add", 1, bias, |n| build(n, Dispatch::float_add, i64::wrapping_add)),
    Operator::new("Sub", 1, no_parameters, |n| build(n, Dispatch::float_sub, i64::wrapping_sub)),
    Operator::new("Mul", 1, scale, |n| build(n, Dispatch::float_mul, i64::wrapping_mul)),
    Operator::new("Div", 1, no_parameters, |n| build(n, Dispatch::float_div, integer::divide)),
];

fn bias(_: usize, elements: usize) -> Role {
    if elements > 1 { Role::Bias } else { Role::Constant }
}

fn scale(_: usize, elements: usize) -> Role {
    if elements > 1 { Role::Scale } else { Role::Constant }
}

/// How two operands come together.
pub struct Operands {
    /// The shape of the result.
    pub dims: Vec<usize>,
    /// The shape that puts the second operand's axes under those of the first.
    under: Option<Vec<usize>>,
}

impl Operands {
    /// Checks the shapes of inputs 0 and 1.
    pub fn read(node: &NodeView<'_>) -> Result<Self, String> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        if node.opset >= 7 {
            return Ok(Self { dims: broadcast(a, b)?, under: None });
        }
        ignore_consumed(node)?;
        let at = node.attributes.optional_int("axis")?;
        if !node.attributes.flag("broadcast", false)? {
            if a.dims != b.dims {
                return Err(format!("shapes {a} and {b} differ and 'broadcast' is not set"));
            }
            return Ok(Self { dims: a.dims.clone(), under: None });
        }
        let misfit = || format!("shape {b} does not lie under {a}");
        let start = match at {
            Some(at) => axis(at, a.rank())?,
            None => a.rank().checked_sub(b.rank()).ok_or_else(misfit)?,
        };
        let mut under = b.dims.clone();
        under.resize((a.rank() - start).max(b.rank()), 1);
        if broadcast(a, &b.reshaped(under.clone()))? != a.dims {
            return Err(misfit());
        }
        Ok(Self { dims: a.dims.clone(), under: Some(crate::graph::at_least_one(&under)) })
    }

    /// Both operands, of the same rank.
    pub fn take(&self, inputs: &mut Inputs) -> (Tensor, Tensor) {
        let (a, mut b) = (inputs.take(0), inputs.take(1));
        if let Some(under) = &self.under {
            b = tensor::reshape(b, under);
        }
        tensor::same_rank(a, b)
    }
}

/// Reads the hint of operator sets before 6 about memory to reuse, which changes no value.
pub fn ignore_consumed(node: &NodeView<'_>) -> Result<(), String> {
    if node.opset < 6 {
        node.attributes.ints("consumed_inputs")?;
    }
    Ok(())
}

fn build(
    node: &NodeView<'_>,
    floats: fn(Tensor, Tensor) -> Tensor,
    ints: fn(i64, i64) -> i64,
) -> Result<Built, String> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let element = a.element;
    if a.kind() != b.kind() || a.kind() == Kind::Bool {
        return Err(format!("{:?} and {:?} do not go together", a.element, b.element));
    }
    let operands = Operands::read(node)?;
    let out = Fact::runtime(element, operands.dims.clone());
    Built::one(out, move |i, _| {
        let (a, b) = operands.take(i);
        if element.kind() == Kind::Float {
            floats(a, b)
        } else {
            integer::wrapped(integer::pairs(a, b, ints), element)
        }
    })
}

/// An `Add` of two floats of one shape and the `Relu` behind it.
pub fn add_rectified(add: &NodeView<'_>, relu: &NodeView<'_>) -> Result<Option<Built>, String> {
    let (a, b) = (add.input(0)?, add.input(1)?);
    if a.kind() != Kind::Float || a.element != b.element || a.dims != b.dims {
        return Ok(None);
    }
    let operands = Operands::read(add)?;
    ignore_consumed(relu)?;
    let out = Fact::runtime(a.element, operands.dims.clone());
    let step = Built::one(out, move |i, _| {
        let (a, b) = operands.take(i);
        Dispatch::add_rectified(a, b)
    });
    step.map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
    use crate::onnx::write::int;

    #[test]
    fn broadcasting_by_hand() {
        let run = |op: &str| {
            Case::new(&[2, 2])
                .floats("w", &[2], &[2.0, 4.0])
                .node(op, &["x", "w"], vec![])
                .run(&sequence(4))
        };
        assert_eq!(run("Add"), [3.0, 6.0, 5.0, 8.0]);
        assert_eq!(run("Sub"), [-1.0, -2.0, 1.0, 0.0]);
        assert_eq!(run("Mul"), [2.0, 8.0, 6.0, 16.0]);
        assert_eq!(run("Div"), [0.5, 0.5, 1.5, 1.0]);
    }

    #[test]
    fn an_old_operand_lies_under_the_axis_it_names() {
        let case = |attributes| {
            Case::new(&[1, 2, 2]).opset(6).floats("w", &[2], &[10.0, 20.0]).node(
                "Add",
                &["x", "w"],
                attributes,
            )
        };
        let run = |attributes| case(attributes).run(&sequence(4));
        assert_eq!(run(vec![int("broadcast", 1), int("axis", 1)]), [11.0, 12.0, 23.0, 24.0]);
        assert_eq!(run(vec![int("broadcast", 1)]), [11.0, 22.0, 13.0, 24.0]);
        case(vec![int("broadcast", 1), int("axis", 1)]).check_gradients();
        let text = case(vec![]).refusal();
        assert!(text.contains("'broadcast' is not set"), "{text}");
        let text = case(vec![int("broadcast", 1), int("axis", 0)]).refusal();
        assert!(text.contains("does not lie under"), "{text}");
    }

    #[test]
    fn integers_wrap_and_divide_by_zero_without_ending_the_process() {
        let run = |op: &str, a: i64, b: i64| {
            Case::new(&[1])
                .ints("a", &[a])
                .ints("b", &[b])
                .node(op, &["a", "b"], vec![])
                .run(&[0.0])[0]
        };
        assert_eq!(run("Add", i64::MAX, 1), i64::MIN as f32);
        assert_eq!(run("Mul", i64::MAX, 2), -2.0);
        assert_eq!(run("Div", i64::MIN, -1), i64::MIN as f32);
        assert_eq!(run("Div", 7, 0), 0.0);
        assert_eq!(run("Div", -7, 2), -3.0);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for op in ["Add", "Sub", "Mul", "Div"] {
            Case::new(&[2, 3, 2])
                .random("w", &[3, 1])
                .node(op, &["x", "w"], vec![])
                .check_gradients();
        }
    }

    #[test]
    fn a_single_number_does_not_train_and_a_vector_does() {
        use crate::graph::Role;
        let role = |op: &str, shape: &[usize]| {
            Case::new(&[2, 3]).random("w", shape).node(op, &["x", "w"], vec![]).roles()
        };
        assert_eq!(role("Add", &[3]), [Role::Bias]);
        assert_eq!(role("Mul", &[3]), [Role::Scale]);
        assert_eq!(role("Add", &[1]), []);
        assert_eq!(role("Sub", &[3]), []);
        assert_eq!(role("Div", &[3]), []);
    }

    #[test]
    fn a_sum_with_a_relu_behind_it_passes_the_gradient_where_it_is_positive() {
        let case = |shape: &[usize]| {
            Case::new(&[2, 3]).random("w", shape).inner("Add", &["x", "w"], "s", vec![]).node(
                "Relu",
                &["s"],
                vec![],
            )
        };
        for shape in [&[2, 3][..], &[3]] {
            case(shape).check_gradients();
        }
        let doubled = Case::new(&[4]).inner("Add", &["x", "x"], "s", vec![]);
        let doubled = doubled.node("Relu", &["s"], vec![]);
        assert_eq!(doubled.run(&[-1.0, 2.0, 0.0, 3.0]), [0.0, 4.0, 0.0, 6.0]);
        assert!(doubled.run(&[f32::NAN; 4])[0].is_nan());
    }
}
