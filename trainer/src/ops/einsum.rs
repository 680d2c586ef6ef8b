//! `Einsum`: diagonals, products of two operands after one another, sums and an order of the axes.
//!
//! An axis of size one broadcasts: the operand does without it.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Device;

use super::equation::{Equation, Label};
use super::{Built, NodeView, Operator, tensor};
use crate::graph::{Fact, Role, Tensor, at_least_one};

pub const TABLE: &[Operator] = &[Operator::new("Einsum", 12, |_, _| Role::Weight, build)];

/// What two operands' labels are in their product.
struct Pair {
    batch: Vec<Label>,
    left: Vec<Label>,
    right: Vec<Label>,
    summed: Vec<Label>,
}

impl Pair {
    /// Both operands without the labels that only they have and nobody needs.
    fn new(a: &[Label], b: &[Label], needed: &[Label]) -> Self {
        let only = |list: &[Label], test: &dyn Fn(&Label) -> bool| -> Vec<Label> {
            list.iter().copied().filter(|l| test(l)).collect()
        };
        Self {
            batch: only(a, &|l| b.contains(l) && needed.contains(l)),
            left: only(a, &|l| !b.contains(l)),
            right: only(b, &|l| !a.contains(l)),
            summed: only(a, &|l| b.contains(l) && !needed.contains(l)),
        }
    }

    fn labels(&self) -> Vec<Label> {
        [&self.batch[..], &self.left, &self.right].concat()
    }
}

/// A value and the labels of its axes.
struct Term {
    value: Tensor,
    labels: Vec<Label>,
}

impl Term {
    /// An operand with each label once and of its size.
    fn new(value: Tensor, labels: &[Label], equation: &Equation, device: &Device) -> Self {
        let mut term = Self { value, labels: labels.to_vec() };
        let repeated = |labels: &[Label]| {
            labels
                .iter()
                .enumerate()
                .find_map(|(b, label)| labels[..b].iter().position(|l| l == label).map(|a| (a, b)))
        };
        while let Some((a, b)) = repeated(&term.labels) {
            term = term.diagonal(a, b, device);
        }
        if !term.labels.is_empty() {
            let sizes = tensor::dims(&term.value);
            let full = |(place, label): (usize, &Label)| {
                (sizes[place] == equation.size(*label)).then_some(*label)
            };
            term.labels = term.labels.iter().enumerate().filter_map(full).collect();
            let shape = at_least_one(&equation.shape(&term.labels));
            term.value = tensor::reshape(term.value, &shape);
        }
        term
    }

    /// The entries whose places along two axes of one size agree.
    fn diagonal(mut self, a: usize, b: usize, device: &Device) -> Self {
        let label = self.labels[a];
        let mut order: Vec<usize> = (0..self.labels.len()).filter(|p| *p != a && *p != b).collect();
        self.labels = order.iter().map(|p| self.labels[*p]).collect();
        self.labels.push(label);
        let kept = order.len();
        order.extend([a, b]);
        let value = tensor::permute(self.value, &order);
        let mut shape = tensor::dims(&value);
        let size = shape[kept];
        shape.truncate(kept);
        shape.push(size * size);
        let index: Vec<i64> = (0..size).map(|p| (p * (size + 1)) as i64).collect();
        let index = tensor::ints_from_host(index, &[size], device);
        Self { value: tensor::select(tensor::reshape(value, &shape), kept, index), ..self }
    }

    /// Sums over the labels that are not among these.
    fn summed(mut self, needed: impl Fn(&Label) -> bool) -> Self {
        for place in (0..self.labels.len()).rev() {
            if !needed(&self.labels[place]) {
                let mut shape = tensor::dims(&self.value);
                shape.remove(place);
                let sum = Dispatch::float_sum_dim(self.value, place);
                self.value = tensor::reshape(sum, &at_least_one(&shape));
                self.labels.remove(place);
            }
        }
        self
    }

    /// The axes in that order, joined to three of those sizes.
    fn arranged(self, order: &[Label], shape: [usize; 3]) -> Tensor {
        tensor::reshape(self.ordered(order), &shape)
    }

    fn ordered(self, order: &[Label]) -> Tensor {
        let places: Vec<usize> =
            order.iter().filter_map(|l| self.labels.iter().position(|own| own == l)).collect();
        if places.len() < 2 { self.value } else { tensor::permute(self.value, &places) }
    }

    fn times(self, other: Self, needed: &[Label], equation: &Equation) -> Self {
        let (own, others) = (self.labels.clone(), other.labels.clone());
        let a = self.summed(|l| needed.contains(l) || others.contains(l));
        let b = other.summed(|l| needed.contains(l) || own.contains(l));
        let pair = Pair::new(&a.labels, &b.labels, needed);
        let count = |labels: &[Label]| equation.shape(labels).iter().product::<usize>();
        let [batch, left, right, summed] =
            [&pair.batch, &pair.left, &pair.right, &pair.summed].map(|labels| count(labels));
        let a_order = [&pair.batch[..], &pair.left, &pair.summed].concat();
        let b_order = [&pair.batch[..], &pair.summed, &pair.right].concat();
        let a = a.arranged(&a_order, [batch, left, summed]);
        let b = b.arranged(&b_order, [batch, summed, right]);
        let product =
            if summed == 1 { Dispatch::float_mul(a, b) } else { Dispatch::float_matmul(a, b) };
        let labels = pair.labels();
        let shape = at_least_one(&equation.shape(&labels));
        Self { value: tensor::reshape(product, &shape), labels }
    }
}

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let shapes: Vec<&Fact> =
        (0..node.inputs.len()).map(|place| node.float(place)).collect::<Result<_, _>>()?;
    let Some(first) = shapes.first() else { return Err("operands are missing".into()) };
    let equation = Equation::new(node.attributes.text("equation", "")?, &shapes)?;
    equation.check(&shapes)?;
    let out = first.reshaped(equation.shape(&equation.output));
    let shape = at_least_one(&out.dims);
    Built::one(out, move |i, context| {
        let mut operands = equation.operands.iter().enumerate();
        let mut next = || {
            let (place, labels) = operands.next()?;
            Some((place, Term::new(i.take(place), labels, &equation, &context.device)))
        };
        let (_, mut product) = next().unwrap_or_else(|| unreachable!("there is an operand"));
        while let Some((place, term)) = next() {
            product = product.times(term, &equation.needed(place), &equation);
        }
        let sum = product.summed(|l| equation.output.contains(l));
        tensor::reshape(sum.ordered(&equation.output), &shape)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence, text};

    fn case(equation: &str, x: &[usize], w: &[&[usize]]) -> Case {
        let mut case = Case::new(x);
        let names: Vec<String> = (0..w.len()).map(|k| format!("w{k}")).collect();
        for (name, shape) in names.iter().zip(w) {
            case = case.floats(name, shape, &sequence(shape.iter().product()));
        }
        let inputs: Vec<&str> =
            std::iter::once("x").chain(names.iter().map(String::as_str)).collect();
        case.opset(12).node("Einsum", &inputs, vec![text("equation", equation)])
    }

    #[test]
    fn one_operand_is_summed_turned_and_cut_along_its_diagonal() {
        let run = |equation| case(equation, &[2, 2], &[]).run(&sequence(4));
        assert_eq!(run("ij->ji"), [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(run("ba"), [1.0, 3.0, 2.0, 4.0], "unwritten outputs are sorted");
        assert_eq!(run("ij -> i"), [3.0, 7.0]);
        assert_eq!(run("ii->i"), [1.0, 4.0]);
        assert_eq!(run("ii"), [5.0]);
        assert_eq!(run("...->..."), sequence(4));
        assert_eq!(run("i...->..."), [4.0, 6.0]);
    }

    #[test]
    fn operands_are_multiplied_after_one_another() {
        assert_eq!(case("ij,jk->ik", &[1, 2], &[&[2, 2]]).run(&[5.0, 6.0]), [23.0, 34.0]);
        assert_eq!(case("i,j", &[2], &[&[2]]).run(&[1.0, 2.0]), [1.0, 2.0, 2.0, 4.0]);
        assert_eq!(case("i,i,i->", &[2], &[&[2], &[2]]).run(&[1.0, 1.0]), [5.0]);
        let broadcast = case("...i,...i->...", &[2, 2], &[&[1, 2]]);
        assert_eq!(broadcast.run(&sequence(4)), [5.0, 11.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let check =
            |equation: &str, x: &[usize], w: &[&[usize]]| case(equation, x, w).check_gradients();

        check("bij,bjk->bik", &[2, 2, 3], &[&[2, 3, 2]]);
        check("bhqd,bhkd->bhqk", &[1, 2, 3, 2], &[&[1, 2, 2, 2]]);
        check("...ij,...jk->...ik", &[2, 1, 2, 3], &[&[2, 3, 2]]);
        check("ijj,jk->ki", &[2, 3, 3], &[&[3, 2]]);
        check("ij,kl->lj", &[2, 3], &[&[2, 2]]);
        check("ij,ij->ij", &[2, 3], &[&[2, 3]]);
        check("ab,bc,cd->da", &[2, 3], &[&[3, 2], &[2, 2]]);
    }

    #[test]
    fn equations_that_do_not_fit_are_refused() {
        let refusal = |equation: &str| case(equation, &[2, 3], &[]).refusal();
        assert!(refusal("ijk->i").contains("does not fit"));
        assert!(refusal("ii->i").contains("stands for"));
        assert!(refusal("ij->k").contains("not understood"));
        assert!(refusal("ij->ii").contains("not understood"));
        assert!(refusal("i.j->i").contains("not understood"));
        assert!(refusal("ij,j->i").contains("not for 1 operands"));
    }
}
