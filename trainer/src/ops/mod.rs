//! The operators: a table by family, a small file each.
//!
//! An entry names its ONNX operator, the operator-set versions whose meaning it honours, what its
//! inputs are for ([`Role`]), and how it is built. Building happens once, at load: it checks the
//! attributes and shapes, works out the output's shape, and returns either a constant (computed on
//! the host) or a kernel. What building accepts must not fail when it runs.
//!
//! Meaning follows <https://onnx.ai/onnx/operators/>.

use std::ops::RangeInclusive;

use onnx_ir::NodeProto;

use crate::graph::{Context, Dim, Fact, Role, Tensor};
use crate::onnx::attributes::Attributes;

mod activation;
mod batch_norm;
mod constant;
mod conv;
mod dropout;
mod elementwise;
mod join;
mod matrix;
mod pool;
mod reduce;
mod shape;
mod softmax;
pub mod tensor;
#[cfg(test)]
pub(crate) mod testing;
mod window;

/// The newest operator set whose operators were compared with this table.
pub const NEWEST_OPSET: i64 = 24;

/// What a step computes: inputs in, outputs out.
pub type Kernel = Box<dyn Fn(&mut Inputs, &mut Context) -> Vec<Tensor> + Send + Sync>;

/// One operator of the table.
pub struct Operator {
    /// Its ONNX name in the default domain.
    pub name: &'static str,
    /// The operator-set versions whose meaning is honoured.
    pub opsets: RangeInclusive<i64>,
    /// What the input at a place is for, when it is an initializer with that many elements.
    pub role: fn(place: usize, elements: usize) -> Role,
    /// Checks a node and builds its kernel.
    pub build: fn(&NodeView<'_>) -> Result<Built, String>,
}

/// What building a node gives.
pub enum Built {
    /// Values known at load.
    Constant(Fact),
    /// Outputs' facts and the kernel that computes them.
    Step(Vec<Fact>, Kernel),
}

impl Built {
    /// A step with one output.
    fn one(
        output: Fact,
        kernel: impl Fn(&mut Inputs, &mut Context) -> Tensor + Send + Sync + 'static,
    ) -> Result<Self, String> {
        Ok(Self::Step(vec![output], Box::new(move |inputs, context| vec![kernel(inputs, context)])))
    }
}

/// A node as its builder sees it.
pub struct NodeView<'a> {
    /// Its attributes.
    pub attributes: Attributes<'a>,
    /// The model's operator set.
    pub opset: i64,
    /// What is known of its inputs; `None` for one left out.
    pub inputs: Vec<Option<Fact>>,
    /// Places in the parameter list of inputs that training changes.
    pub parameters: Vec<Option<usize>>,
    /// How many of its outputs are used or named.
    pub outputs: usize,
}

impl NodeView<'_> {
    /// The fact of an input that has to be there.
    fn input(&self, place: usize) -> Result<&Fact, String> {
        self.optional(place).ok_or_else(|| format!("input {place} is missing"))
    }

    /// The fact of an input that may be left out.
    fn optional(&self, place: usize) -> Option<&Fact> {
        self.inputs.get(place).and_then(Option::as_ref)
    }

    /// The fact of a float input that has to be there.
    fn float(&self, place: usize) -> Result<&Fact, String> {
        let fact = self.input(place)?;
        if fact.is_int() {
            return Err(format!("input {place} holds integers, floats are needed"));
        }
        if fact.dims.contains(&Dim::Fixed(0)) {
            return Err(format!("input {place} of shape {fact} has no elements"));
        }
        Ok(fact)
    }

    /// The integers of an input, which have to be known at load.
    fn ints(&self, place: usize) -> Result<&[i64], String> {
        self.input(place)?.ints().ok_or_else(|| {
            format!("input {place} has to be integers known when the model is loaded")
        })
    }

    /// A float scalar known at load; `None` when the input is left out.
    fn scalar(&self, place: usize) -> Result<Option<f32>, String> {
        match self.optional(place) {
            None => Ok(None),
            Some(fact) => match fact.floats() {
                Some([value]) => Ok(Some(*value)),
                _ => Err(format!(
                    "input {place} has to be one number known when the model is loaded"
                )),
            },
        }
    }

    /// Refuses nodes whose further outputs are used.
    fn only_output(&self) -> Result<(), String> {
        if self.outputs == 1 {
            Ok(())
        } else {
            Err("outputs after the first are not computed".into())
        }
    }
}

/// The input values of a step.
#[derive(Debug)]
pub struct Inputs(Vec<Option<Tensor>>);

impl Inputs {
    /// Values by place; `None` for inputs left out and for those known at load.
    pub fn new(values: Vec<Option<Tensor>>) -> Self {
        Self(values)
    }

    /// Takes a value that the builder checked to be there.
    fn take(&mut self, place: usize) -> Tensor {
        self.try_take(place)
            .unwrap_or_else(|| unreachable!("input {place} was checked when the node was built"))
    }

    /// Takes a value that may be left out.
    fn try_take(&mut self, place: usize) -> Option<Tensor> {
        self.0.get_mut(place).and_then(Option::take)
    }

    fn take_all(&mut self) -> Vec<Tensor> {
        self.0.iter_mut().filter_map(Option::take).collect()
    }
}

const FAMILIES: &[&[Operator]] = &[
    activation::TABLE,
    batch_norm::TABLE,
    constant::TABLE,
    conv::TABLE,
    dropout::TABLE,
    elementwise::TABLE,
    join::TABLE,
    matrix::TABLE,
    pool::TABLE,
    reduce::TABLE,
    shape::TABLE,
    softmax::TABLE,
];

/// Every operator of the table.
pub fn table() -> impl Iterator<Item = &'static Operator> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// The operator of a node.
///
/// # Errors
/// It is in another domain, not in the table, or not in a version that is honoured.
pub fn find(node: &NodeProto, opset: i64) -> Result<&'static Operator, String> {
    if !matches!(node.domain.as_str(), "" | "ai.onnx") {
        return Err(format!("operators of the domain '{}' are not known", node.domain));
    }
    let operator = table().find(|o| o.name == node.op_type).ok_or("this operator is not known")?;
    if !operator.opsets.contains(&opset) {
        let (from, to) = operator.opsets.clone().into_inner();
        return Err(format!(
            "operator set {opset} gives it a meaning that is not honoured ({from} to {to} are); convert the model"
        ));
    }
    Ok(operator)
}

/// What the input at `place` of `node` is for.
pub fn role(node: &NodeProto, place: usize, elements: usize) -> Role {
    table().find(|o| o.name == node.op_type).map_or(Role::Constant, |o| (o.role)(place, elements))
}

/// The role of operators whose inputs are data only.
fn no_parameters(_: usize, _: usize) -> Role {
    Role::Constant
}

/// `axis` counted from the front.
fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let counted = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(counted)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| format!("axis {axis} does not exist in {rank} dimensions"))
}
