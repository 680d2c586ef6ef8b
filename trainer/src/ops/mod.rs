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

use crate::graph::limits::MAX_ELEMENTS;
use crate::graph::{Context, Fact, Role, Tensor};
use crate::onnx::HostTensor;

mod activation;
mod batch_norm;
mod cast;
mod choice;
mod clip;
mod compare;
mod constant;
mod conv;
mod conv_transpose;
mod cumulative;
mod depth_space;
mod dropout;
mod einsum;
mod elementwise;
mod equation;
mod gather;
mod gating;
mod generate;
mod gru;
mod index;
mod integer;
mod interpolate;
mod join;
mod logic;
mod lstm;
mod matrix;
mod node;
mod normalise;
mod order;
mod pad;
mod pool;
mod pool_global;
mod pool_max;
mod power;
mod quantize;
mod recurrent;
mod reduce;
mod repeat;
mod resize;
mod rnn;
mod round_trip;
mod scatter;
mod shape;
mod slice;
mod smooth;
mod softmax;
mod squeeze;
mod taps;
pub mod tensor;
#[cfg(test)]
pub(crate) mod testing;
mod unary;
mod variadic;
mod window;

pub use node::NodeView;

/// The newest operator set whose operators were compared with this table.
pub const NEWEST_OPSET: i64 = 28;

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
    /// How it is built as one step with the node that its first input comes from.
    pub fusions: &'static [Fusion],
}

/// Two nodes, one after the other, as one step. Its inputs are all of the first node's, then those
/// of the second but its first.
#[derive(Debug, Clone, Copy)]
pub struct Fusion {
    /// The first node's operator.
    pub first: &'static str,
    /// Whether it is for speed alone, and so only where nobody else reads what the first node gives.
    pub alone: bool,
    /// Builds the kernel of both; it may not read an input's value. None: these two stay apart.
    pub build: fn(first: &NodeView<'_>, second: &NodeView<'_>) -> Result<Option<Built>, String>,
}

impl Operator {
    /// An operator whose meaning has been the same since that operator set.
    const fn new(
        name: &'static str,
        since: i64,
        role: fn(place: usize, elements: usize) -> Role,
        build: fn(&NodeView<'_>) -> Result<Built, String>,
    ) -> Self {
        let opsets = RangeInclusive::new(since, NEWEST_OPSET);
        Self { name, opsets, role, build, fusions: &[] }
    }

    /// One that becomes one step with the node before it where that is a `first`.
    const fn fused(self, fusions: &'static [Fusion]) -> Self {
        Self { fusions, ..self }
    }
}

/// What building a node gives.
pub enum Built {
    /// A value known at load.
    Constant(HostTensor),
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

    /// A step with several outputs.
    fn many(
        outputs: Vec<Fact>,
        kernel: impl Fn(&mut Inputs, &mut Context) -> Vec<Tensor> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        Ok(Self::Step(outputs, Box::new(kernel)))
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
    cast::TABLE,
    choice::TABLE,
    clip::TABLE,
    compare::TABLE,
    constant::TABLE,
    conv::TABLE,
    conv_transpose::TABLE,
    cumulative::TABLE,
    depth_space::TABLE,
    dropout::TABLE,
    einsum::TABLE,
    elementwise::TABLE,
    gather::TABLE,
    generate::TABLE,
    gru::TABLE,
    join::TABLE,
    logic::TABLE,
    lstm::TABLE,
    matrix::TABLE,
    normalise::TABLE,
    order::TABLE,
    pad::TABLE,
    pool::TABLE,
    pool_global::TABLE,
    pool_max::TABLE,
    power::TABLE,
    quantize::TABLE,
    reduce::TABLE,
    repeat::TABLE,
    resize::TABLE,
    rnn::TABLE,
    scatter::TABLE,
    shape::TABLE,
    slice::TABLE,
    smooth::TABLE,
    softmax::TABLE,
    squeeze::TABLE,
    unary::TABLE,
    variadic::TABLE,
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

/// The shape two values broadcast to (numpy's rule).
fn broadcast(a: &Fact, b: &Fact) -> Result<Vec<usize>, String> {
    let rank = a.rank().max(b.rank());
    let size = |f: &Fact, place: usize| {
        let missing = rank - f.rank();
        if place < missing { 1 } else { f.dims[place - missing] }
    };
    (0..rank)
        .map(|place| match (size(a, place), size(b, place)) {
            (x, y) if x == y => Ok(x),
            (1, n) | (n, 1) => Ok(n),
            _ => Err(format!("shapes {a} and {b} do not broadcast")),
        })
        .collect()
}

/// Refuses shapes that a kernel cannot make on its way to a result of a permitted size.
fn bounded(dims: &[usize]) -> Result<(), String> {
    match dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) {
        Some(n) if n <= MAX_ELEMENTS => Ok(()),
        _ => Err(format!("a value of shape {dims:?} has more than {MAX_ELEMENTS} elements")),
    }
}

/// The axes of a list, counted from the front, each once and in order.
fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut axes: Vec<usize> = list.iter().map(|a| axis(*a, rank)).collect::<Result<_, _>>()?;
    axes.sort_unstable();
    let count = axes.len();
    axes.dedup();
    if axes.len() < count { Err(format!("axes {list:?} name one twice")) } else { Ok(axes) }
}

/// `axis` counted from the front.
fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let counted = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(counted)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| format!("axis {axis} does not exist in {rank} dimensions"))
}
