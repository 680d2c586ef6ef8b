//! Finds the operator for every node that is wanted, or the reason why not, and computes at once
//! what depends on constants alone.
//!
//! Nodes are visited in the file's order, which ONNX requires to be one in which they can run. A
//! refused node does not stop the search: the nodes behind it are still looked up, so that one
//! report names all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::tensor::Device;
use onnx_ir::NodeProto;

use super::{Context, Fact, GraphError, Parameters, Refusal};
use crate::onnx::attributes::Attributes;
use crate::onnx::{HostTensor, Model};
use crate::ops::{self, Built, Inputs, Kernel, NodeView, tensor};

/// The most elements of one value: 1 GiB of floats.
const MAX_ELEMENTS: usize = 1 << 28;

/// The most elements of a value that is computed when the model is loaded.
const MAX_FOLDED_ELEMENTS: usize = 1 << 24;

/// A node that has to run, and what it computes.
pub struct Checked<'a> {
    pub node: &'a NodeProto,
    /// Inputs that were read when it was built and are not needed when it runs.
    pub known: HashSet<usize>,
    pub kernel: Kernel,
}

/// What checking a graph gives.
pub struct Findings<'a> {
    /// The nodes that have to run, in order.
    pub steps: Vec<Checked<'a>>,
    /// What is known of every value.
    pub facts: HashMap<&'a str, Fact>,
}

/// Checks every node that the values `wanted` depend on, for these inputs.
pub fn check<'a>(
    model: &'a Model,
    inputs: &[Fact],
    wanted: &[String],
    parameters: &Parameters,
) -> Result<Findings<'a>, GraphError> {
    let mut search = Search::new(model, inputs, parameters)?;
    for node in needed(model, wanted) {
        search.visit(node);
    }
    if !search.refusals.is_empty() {
        return Err(GraphError::Refused(search.refusals));
    }
    let facts = search.facts.into_iter().filter_map(|(name, fact)| Some((name, fact?))).collect();
    Ok(Findings { steps: search.steps, facts })
}

struct Search<'a> {
    model: &'a Model,
    parameters: HashMap<String, usize>,
    /// `None` for what a refused node would have given.
    facts: HashMap<&'a str, Option<Fact>>,
    steps: Vec<Checked<'a>>,
    refusals: Vec<Refusal>,
    host: Device,
}

impl<'a> Search<'a> {
    fn new(model: &'a Model, inputs: &[Fact], parameters: &Parameters) -> Result<Self, GraphError> {
        if inputs.len() != model.inputs.len() {
            return Err(GraphError::Shape(format!(
                "the graph has {} inputs, {} were given",
                model.inputs.len(),
                inputs.len()
            )));
        }
        let mut facts = HashMap::new();
        for (input, fact) in model.inputs.iter().zip(inputs) {
            if input.element() != Ok(fact.element) {
                return Err(GraphError::Shape(format!(
                    "input '{}' is not of type {:?}",
                    input.name, fact.element
                )));
            }
            facts.insert(input.name.as_str(), Some(fact.clone()));
        }
        let places = parameters.places();
        for (name, tensor) in &model.initializers {
            let fact = if places.contains_key(name) {
                Fact::runtime(tensor.element, tensor.shape.clone())
            } else {
                Fact::constant(Arc::clone(tensor))
            };
            facts.insert(name, Some(fact));
        }
        Ok(Self {
            model,
            parameters: places,
            facts,
            steps: Vec::new(),
            refusals: Vec::new(),
            host: Device::flex(),
        })
    }

    fn visit(&mut self, node: &'a NodeProto) {
        let found = self.build(node);
        let facts = match found {
            Ok(Some(facts)) => facts.into_iter().map(Some).collect(),
            Ok(None) => Vec::new(),
            Err(why) => {
                let refusal = Refusal { node: label(node), op: node.op_type.clone(), why };
                self.refusals.push(refusal);
                Vec::new()
            }
        };
        let facts = facts.into_iter().chain(std::iter::repeat(None));
        self.facts.extend(node.output.iter().map(String::as_str).zip(facts));
    }

    /// What the node's outputs are. `Ok(None)`: known operator, but an input comes from a refused
    /// node.
    fn build(&mut self, node: &'a NodeProto) -> Result<Option<Vec<Fact>>, String> {
        let operator = ops::find(node, self.model.opset)?;
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            match self.facts.get(name.as_str()) {
                None => return Err(format!("its input '{name}' is not computed before it")),
                Some(None) => return Ok(None),
                Some(known) => inputs.push(known.clone()),
            }
        }
        let place = |name: &String| self.parameters.get(name.as_str()).copied();
        let outputs = node.output.iter().map(|o| !o.is_empty()).collect();
        let view = NodeView::new(
            Attributes::of(node),
            self.model.opset,
            inputs,
            node.input.iter().map(place).collect(),
            outputs,
        );
        let built = (operator.build)(&view)?;
        view.attributes.finish()?;
        let (facts, kernel) = match built {
            Built::Constant(tensor) => {
                within(&tensor.shape, MAX_FOLDED_ELEMENTS)?;
                let name = node.output.first();
                if name.is_some_and(|name| self.parameters.contains_key(name)) {
                    return Ok(Some(vec![Fact::runtime(tensor.element, tensor.shape)]));
                }
                return Ok(Some(vec![Fact::constant(Arc::new(tensor))]));
            }
            Built::Step(facts, kernel) => (facts, kernel),
        };
        for fact in &facts {
            within(&fact.dims, MAX_ELEMENTS)?;
        }
        let constant = view.inputs.iter().flatten().all(|fact| fact.constant.is_some());
        if constant && facts.iter().all(|fact| fact.count() <= MAX_FOLDED_ELEMENTS) {
            return Ok(Some(self.fold(&view, facts, &kernel)));
        }
        let known = view.known.into_inner();
        self.steps.push(Checked { node, known, kernel });
        Ok(Some(facts))
    }

    /// Computes now, on the host, what depends on nothing that changes.
    fn fold(&self, view: &NodeView<'_>, facts: Vec<Fact>, kernel: &Kernel) -> Vec<Fact> {
        let known = view.known.borrow();
        let values = view.inputs.iter().enumerate().map(|(place, fact)| {
            let tensor = fact.as_ref()?.constant.as_ref()?;
            (!known.contains(&place)).then(|| tensor::upload(tensor, &self.host))
        });
        let mut inputs = Inputs::new(values.collect());
        let results = kernel(&mut inputs, &mut Context::infer(&self.host));
        let constant = |(fact, value): (Fact, _)| {
            Fact::constant(Arc::new(HostTensor {
                element: fact.element,
                shape: fact.dims,
                elements: tensor::download(value),
            }))
        };
        facts.into_iter().zip(results).map(constant).collect()
    }
}

fn within(shape: &[usize], limit: usize) -> Result<(), String> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match count {
        Some(n) if n <= limit => Ok(()),
        _ => Err(format!("its result of shape {shape:?} has more than {limit} elements")),
    }
}

/// The nodes that the values `wanted` depend on, in the file's order.
fn needed<'a>(model: &'a Model, wanted: &[String]) -> Vec<&'a NodeProto> {
    let mut wanted: HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut nodes = Vec::new();
    for node in model.proto.graph.node.iter().rev() {
        if node.output.iter().any(|o| !o.is_empty() && wanted.contains(o.as_str())) {
            wanted.extend(node.input.iter().map(String::as_str));
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

fn label(node: &NodeProto) -> String {
    if node.name.is_empty() {
        node.output.first().cloned().unwrap_or_default()
    } else {
        node.name.clone()
    }
}
