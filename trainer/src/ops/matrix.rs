//! `Gemm` and `MatMul`.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Dispatch, Scalar};

use super::{Built, NodeView, Operator, broadcast, tensor};
use crate::graph::{Fact, Role, Tensor};

pub const TABLE: &[Operator] = &[
    Operator::new("Gemm", 7, gemm_role, gemm),
    Operator::new("MatMul", 1, |_, _| Role::Weight, matmul),
];

fn gemm_role(place: usize, _: usize) -> Role {
    if place == 2 { Role::Bias } else { Role::Weight }
}

fn gemm(node: &NodeView<'_>) -> Result<Built, String> {
    let (a, b) = (node.float(0)?, node.float(1)?);
    let attributes = &node.attributes;
    let (alpha, beta) = (attributes.float("alpha", 1.0)?, attributes.float("beta", 1.0)?);
    let (turn_a, turn_b) = (attributes.flag("transA", false)?, attributes.flag("transB", false)?);
    if a.rank() != 2 || b.rank() != 2 {
        return Err(format!("inputs of shapes {a} and {b} are no matrices"));
    }
    let sides =
        |f: &Fact, turn: bool| if turn { (f.dims[1], f.dims[0]) } else { (f.dims[0], f.dims[1]) };
    let ((rows, inner), (inner_b, columns)) = (sides(a, turn_a), sides(b, turn_b));
    if inner != inner_b {
        return Err(format!("matrices of shapes {a} and {b} do not fit"));
    }
    let dims = vec![rows, columns];
    let out = Fact::float(dims);
    if let Some(c) = node.optional(2)
        && (c.kind() != a.kind() || broadcast(c, &out)? != out.dims)
    {
        return Err(format!("the addend of shape {c} does not fit"));
    }
    Built::one(out, move |i, _| {
        let (a, b) = (turned(i.take(0), turn_a), turned(i.take(1), turn_b));
        let product = scaled(Dispatch::float_matmul(a, b), alpha);
        let Some(c) = i.try_take(2) else { return product };
        let (product, c) = tensor::same_rank(product, scaled(c, beta));
        Dispatch::float_add(product, c)
    })
}

fn turned(x: Tensor, turn: bool) -> Tensor {
    if turn { Dispatch::float_swap_dims(x, 0, 1) } else { x }
}

fn scaled(x: Tensor, factor: f32) -> Tensor {
    if factor == 1.0 { x } else { Dispatch::float_mul_scalar(x, Scalar::Float(f64::from(factor))) }
}

fn matmul(node: &NodeView<'_>) -> Result<Built, String> {
    let (a, b) = (node.float(0)?, node.float(1)?);
    if a.rank() < 2 || b.rank() < 2 {
        return Err(format!("vectors (shapes {a} and {b}) are not done"));
    }
    let (ra, rb) = (a.rank(), b.rank());
    if a.dims[ra - 1] != b.dims[rb - 2] {
        return Err(format!("shapes {a} and {b} do not fit"));
    }
    let leading = |f: &Fact| Fact::float(f.dims[..f.rank() - 2].to_vec());
    let mut dims = broadcast(&leading(a), &leading(b))?;
    dims.extend([a.dims[ra - 2], b.dims[rb - 1]]);
    let out = Fact::float(dims);
    if rb == 2 && ra > 2 {
        let (inner, columns) = (b.dims[0], b.dims[1]);
        return Built::one(out, move |i, _| {
            let x = i.take(0);
            let mut shape = tensor::dims(&x);
            let rows = shape.iter().product::<usize>() / inner.max(1);
            let product = Dispatch::float_matmul(tensor::reshape(x, &[rows, inner]), i.take(1));
            shape[ra - 1] = columns;
            tensor::reshape(product, &shape)
        });
    }
    Built::one(out, |i, _| {
        let (a, b) = tensor::same_rank(i.take(0), i.take(1));
        Dispatch::float_matmul(a, b)
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
