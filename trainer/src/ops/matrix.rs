//! `Gemm`, `MatMul` and `MatMulInteger`.

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Scalar};

use super::{Built, NodeView, Operator, bounded, broadcast, integer, no_parameters, tensor};
use crate::graph::{Fact, Role, Tensor, at_least_one};
use crate::onnx::{Element, Kind};

pub const TABLE: &[Operator] = &[
    Operator::new("Gemm", 1, gemm_role, gemm),
    Operator::new("MatMul", 1, |_, _| Role::Weight, matmul),
    Operator::new("MatMulInteger", 10, no_parameters, matmul_integer),
];

fn gemm_role(place: usize, _: usize) -> Role {
    if place == 2 { Role::Bias } else { Role::Weight }
}

/// Two numeric inputs of one kind.
fn pair<'a>(node: &'a NodeView<'_>) -> Result<(&'a Fact, &'a Fact), String> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    if a.kind() != b.kind() || a.kind() == Kind::Bool {
        return Err(format!("{:?} and {:?} do not go together", a.element, b.element));
    }
    Ok((a, b))
}

fn product(a: Tensor, b: Tensor) -> Tensor {
    match tensor::kind(&a) {
        Kind::Float => Dispatch::float_matmul(a, b),
        _ => Dispatch::int_matmul(a, b),
    }
}

fn gemm(node: &NodeView<'_>) -> Result<Built, String> {
    let (a, b) = pair(node)?;
    let attributes = &node.attributes;
    let (alpha, beta) = (attributes.float("alpha", 1.0)?, attributes.float("beta", 1.0)?);
    let (turn_a, turn_b) = (attributes.flag("transA", false)?, attributes.flag("transB", false)?);
    if node.opset < 7 {
        // Whether the addend may broadcast; one of the result's shape does not have to.
        attributes.flag("broadcast", false)?;
    }
    if a.rank() != 2 || b.rank() != 2 {
        return Err(format!("inputs of shapes {a} and {b} are no matrices"));
    }
    if a.kind() == Kind::Int && (whole(alpha).is_none() || whole(beta).is_none()) {
        return Err(format!("integers are not scaled by {alpha} and {beta}"));
    }
    let sides =
        |f: &Fact, turn: bool| if turn { (f.dims[1], f.dims[0]) } else { (f.dims[0], f.dims[1]) };
    let ((rows, inner), (inner_b, columns)) = (sides(a, turn_a), sides(b, turn_b));
    if inner != inner_b {
        return Err(format!("matrices of shapes {a} and {b} do not fit"));
    }
    let out = a.reshaped(vec![rows, columns]);
    if let Some(c) = node.optional(2)
        && (c.kind() != a.kind() || broadcast(c, &out)? != out.dims)
    {
        return Err(format!("the addend of shape {c} does not fit"));
    }
    let element = a.element;
    Built::one(out, move |i, _| {
        let (a, b) = (turned(i.take(0), turn_a), turned(i.take(1), turn_b));
        let product = scaled(product(a, b), alpha);
        let Some(c) = i.try_take(2) else { return integer::wrapped(product, element) };
        let (product, c) = tensor::same_rank(product, scaled(c, beta));
        match element.kind() {
            Kind::Float => Dispatch::float_add(product, c),
            _ => integer::wrapped(Dispatch::int_add(product, c), element),
        }
    })
}

/// A factor that is a small whole number.
fn whole(factor: f32) -> Option<i64> {
    (factor.fract() == 0.0 && factor.abs() <= 65536.0).then_some(factor as i64)
}

fn turned(x: Tensor, turn: bool) -> Tensor {
    if turn { tensor::permute(x, &[1, 0]) } else { x }
}

fn scaled(x: Tensor, factor: f32) -> Tensor {
    match (tensor::kind(&x), whole(factor)) {
        (_, Some(1)) => x,
        (Kind::Int, Some(factor)) => Dispatch::int_mul_scalar(x, Scalar::Int(factor)),
        _ => Dispatch::float_mul_scalar(x, Scalar::Float(f64::from(factor))),
    }
}

/// The dimensions of a product, where a vector on the left is a row and one on the right a column.
struct Shapes {
    a: Vec<usize>,
    b: Vec<usize>,
    /// The dimensions of the result.
    dims: Vec<usize>,
}

impl Shapes {
    fn new(a: &Fact, b: &Fact) -> Result<Self, String> {
        if a.rank() == 0 || b.rank() == 0 {
            return Err(format!("shapes {a} and {b} are no matrices or vectors"));
        }
        let (row, column) = (a.rank() == 1, b.rank() == 1);
        let (mut left, mut right) = (a.dims.clone(), b.dims.clone());
        if row {
            left.insert(0, 1);
        }
        if column {
            right.push(1);
        }
        let (ra, rb) = (left.len(), right.len());
        if left[ra - 1] != right[rb - 2] {
            return Err(format!("shapes {a} and {b} do not fit"));
        }
        let leading = |dims: &[usize]| Fact::float(dims[..dims.len() - 2].to_vec());
        let mut dims = broadcast(&leading(&left), &leading(&right))?;
        if !row {
            dims.push(left[ra - 2]);
        }
        if !column {
            dims.push(right[rb - 1]);
        }
        bounded(&dims)?;
        Ok(Self { a: left, b: right, dims })
    }

    fn run(&self, a: Tensor, b: Tensor) -> Tensor {
        let (a, b) = (tensor::reshape(a, &self.a), tensor::reshape(b, &self.b));
        let result = if self.b.len() == 2 && self.a.len() > 2 {
            // One matrix for all of the left: one large product.
            let inner = self.b[0];
            let rows = self.a.iter().product::<usize>() / inner;
            product(tensor::reshape(a, &[rows, inner]), b)
        } else {
            let (a, b) = tensor::same_rank(a, b);
            product(a, b)
        };
        tensor::reshape(result, &at_least_one(&self.dims))
    }
}

fn matmul(node: &NodeView<'_>) -> Result<Built, String> {
    let (a, b) = pair(node)?;
    let shapes = Shapes::new(a, b)?;
    let element = a.element;
    Built::one(a.reshaped(shapes.dims.clone()), move |i, _| {
        integer::wrapped(shapes.run(i.take(0), i.take(1)), element)
    })
}

/// The shape in which a zero point, one number or one for each entry of the axis at `place` from
/// the end, is subtracted.
fn zero_point(
    node: &NodeView<'_>,
    place: usize,
    x: &[usize],
    from_end: usize,
) -> Result<Vec<usize>, String> {
    let Some(zero) = node.optional(place) else { return Ok(Vec::new()) };
    let mut shape = vec![1; x.len()];
    let axis = x.len() - from_end;
    if zero.kind() == Kind::Int && zero.count() == 1 {
        return Ok(shape);
    }
    if zero.kind() == Kind::Int && zero.dims == [x[axis]] {
        shape[axis] = x[axis];
        return Ok(shape);
    }
    Err(format!("a zero point of shape {zero} does not fit {x:?}"))
}

fn matmul_integer(node: &NodeView<'_>) -> Result<Built, String> {
    let (a, b) = pair(node)?;
    if a.element.width() != 1 || b.element.width() != 1 || a.kind() != Kind::Int {
        return Err(format!("{:?} and {:?} are no bytes", a.element, b.element));
    }
    let shapes = Shapes::new(a, b)?;
    let (zero_a, zero_b) = (zero_point(node, 2, &shapes.a, 2)?, zero_point(node, 3, &shapes.b, 1)?);
    Built::one(Fact::runtime(Element::I32, shapes.dims.clone()), move |i, _| {
        let mut shifted = |place: usize, x: &[usize], zero: &[usize]| {
            let value = tensor::reshape(i.take(place), x);
            match i.try_take(place + 2) {
                Some(by) => Dispatch::int_sub(value, tensor::reshape(by, zero)),
                None => value,
            }
        };
        let (a, b) = (shifted(0, &shapes.a, &zero_a), shifted(1, &shapes.b, &zero_b));
        integer::wrapped(shapes.run(a, b), Element::I32)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence};
    use crate::onnx::write::{float, int};

    #[test]
    fn gemm_by_hand_with_scales_and_transposes() {
        let case = Case::new(&[1, 2])
            .floats("w", &[2, 3], &sequence(6))
            .floats("c", &[3, 1], &[1.0, -1.0, 0.0])
            .node(
                "Gemm",
                &["w", "x", "c"],
                vec![int("transA", 1), int("transB", 1), float("alpha", 2.0), float("beta", 10.0)],
            );
        // wᵀ·xᵀ = [29 40 51]ᵀ; ·2 + 10·c
        assert_eq!(case.run(&[5.0, 6.0]), [68.0, 70.0, 102.0]);
    }

    #[test]
    fn matmul_folds_leading_dimensions() {
        let case = Case::new(&[2, 1, 2]).floats("w", &[2, 1], &[1.0, 10.0]).node(
            "MatMul",
            &["x", "w"],
            vec![],
        );
        assert_eq!(case.run(&sequence(4)), [21.0, 43.0]);
    }

    #[test]
    fn vectors_are_rows_on_the_left_and_columns_on_the_right() {
        let case = |x: &[usize], w: &[usize]| {
            let values = sequence(w.iter().product());
            Case::new(x).floats("w", w, &values).node("MatMul", &["x", "w"], vec![])
        };
        assert_eq!(case(&[3], &[3]).run(&sequence(3)), [14.0]);
        assert_eq!(case(&[3], &[3]).output_shape(), [0usize; 0]);
        assert_eq!(case(&[2], &[3, 2, 2]).run(&sequence(2)), [7.0, 10.0, 19.0, 22.0, 31.0, 34.0]);
        assert_eq!(case(&[2], &[3, 2, 2]).output_shape(), [3, 2]);
        assert_eq!(case(&[2, 1, 2], &[2]).run(&sequence(4)), [5.0, 11.0]);
        assert_eq!(case(&[2, 1, 2], &[2]).output_shape(), [2, 1]);
    }

    #[test]
    fn gradients_of_vectors_and_broadcasts_match_finite_differences() {
        let shapes: [(&[usize], &[usize]); 5] = [
            (&[3], &[3]),
            (&[2], &[3, 2, 2]),
            (&[2, 3, 2], &[2]),
            (&[2, 1, 2, 3], &[2, 3, 2]),
            (&[3, 2], &[2, 2, 2]),
        ];
        for (x, w) in shapes {
            Case::new(x).random("w", w).node("MatMul", &["x", "w"], vec![]).check_gradients();
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let text =
            Case::new(&[2, 3]).random("w", &[2]).node("MatMul", &["x", "w"], vec![]).refusal();
        assert!(text.contains("do not fit"), "{text}");
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[3, 4])
            .random("w", &[5, 4])
            .random("b", &[5])
            .node("Gemm", &["x", "w", "b"], vec![int("transB", 1)])
            .check_gradients();
        Case::new(&[2, 3, 4])
            .random("w", &[4, 2])
            .node("MatMul", &["x", "w"], vec![])
            .check_gradients();
        Case::new(&[2, 3, 4])
            .random("w", &[1, 4, 2])
            .node("MatMul", &["x", "w"], vec![])
            .check_gradients();
    }
}
