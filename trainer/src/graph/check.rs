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

use super::limits::{MAX_ELEMENTS, MAX_FOLDED_ELEMENTS, MAX_FOLDED_TOGETHER};
use super::{Context, Fact, GraphError, Parameters, Refusal};
use crate::onnx::attributes::Attributes;
use crate::onnx::{HostTensor, Model};
use crate::ops::{self, Built, Inputs, Kernel, NodeView, Operator, tensor};

/// A node that has to run, and what it computes.
pub struct Checked<'a> {
    pub node: &'a NodeProto,
    /// The values that its kernel takes; `None` for those left out or read when it was built.
    pub inputs: Vec<Option<&'a str>>,
    pub kernel: Kernel,
}

/// What checking a graph gives.
pub struct Findings<'a> {
    /// The nodes that have to run, in order.
    pub steps: Vec<Checked<'a>>,
    /// What is known of every value.
    pub facts: HashMap<&'a str, Fact>,
    /// What is known of the values wanted, in their order.
    pub wanted: Vec<Fact>,
}

/// Checks every node that the values `wanted` depend on, for these inputs.
pub fn check<'a>(
    model: &'a Model,
    inputs: &[Fact],
    wanted: &[String],
    parameters: &Parameters,
) -> Result<Findings<'a>, GraphError> {
    let mut search = Search::new(model, inputs, parameters)?;
    let nodes = needed(model, wanted);
    for name in nodes.iter().flat_map(|node| &node.input).chain(wanted) {
        *search.readers.entry(name.clone()).or_default() += 1;
    }
    for node in nodes {
        search.visit(node);
    }
    if !search.refusals.is_empty() {
        return Err(GraphError::Refused(search.refusals));
    }
    let facts = search.facts.into_iter().filter_map(|(name, fact)| Some((name, fact?)));
    let facts: HashMap<&str, Fact> = facts.collect();
    let computed = |name: &String| {
        facts.get(name.as_str()).cloned().ok_or_else(|| {
            GraphError::Shape(format!("'{name}' is not a value that the graph computes"))
        })
    };
    let found = wanted.iter().map(computed).collect::<Result<_, _>>()?;
    Ok(Findings { steps: used(search.steps, wanted), facts, wanted: found })
}

/// The steps that somebody reads: those whose work another does as well are left out.
fn used<'a>(steps: Vec<Checked<'a>>, wanted: &[String]) -> Vec<Checked<'a>> {
    let mut read: HashSet<String> = wanted.iter().cloned().collect();
    let mut kept = Vec::with_capacity(steps.len());
    for step in steps.into_iter().rev() {
        if step.node.output.iter().any(|name| read.contains(name)) {
            read.extend(step.inputs.iter().flatten().map(|name| (*name).to_owned()));
            kept.push(step);
        }
    }
    kept.reverse();
    kept
}

struct Search<'a> {
    model: &'a Model,
    parameters: HashMap<String, usize>,
    /// `None` for what a refused node would have given.
    facts: HashMap<&'a str, Option<Fact>>,
    steps: Vec<Checked<'a>>,
    /// The step that computes a value, by the value's name.
    makers: HashMap<&'a str, &'a NodeProto>,
    /// How many read a value, those who asked for it among them; no entry where nobody does.
    readers: HashMap<String, usize>,
    /// How many elements may still be computed now.
    foldable: usize,
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
            makers: HashMap::new(),
            readers: HashMap::new(),
            foldable: MAX_FOLDED_TOGETHER,
            refusals: Vec::new(),
            host: Device::flex(),
        })
    }

    fn visit(&mut self, node: &'a NodeProto) {
        let facts = match self.build(node) {
            Ok(facts) => facts.unwrap_or_default(),
            Err(why) => {
                self.refuse(node, why);
                Vec::new()
            }
        };
        let facts = facts.into_iter().map(Some).chain(std::iter::repeat(None));
        for (name, fact) in node.output.iter().zip(facts).filter(|(name, _)| !name.is_empty()) {
            if self.facts.insert(name, fact).is_some() {
                self.refuse(node, format!("its output '{name}' has the name of another value"));
            }
        }
    }

    fn refuse(&mut self, node: &NodeProto, why: String) {
        self.refusals.push(Refusal { node: label(node), op: node.op_type.clone(), why });
    }

    /// What the node's outputs are. `Ok(None)`: known operator, but an input comes from a refused
    /// node.
    fn build(&mut self, node: &'a NodeProto) -> Result<Option<Vec<Fact>>, String> {
        let operator = ops::find(node, self.model.opset)?;
        let Some(view) = self.view(node)? else { return Ok(None) };
        let (built, names) = match self.fused(operator, node, &view)? {
            Some(both) => both,
            None => ((operator.build)(&view)?, node.input.iter().collect::<Vec<_>>()),
        };
        view.attributes.finish()?;
        let (facts, kernel) = match built {
            Built::Constant(tensor) => {
                within(&tensor.shape, MAX_FOLDED_ELEMENTS)?;
                // Without inputs it is a part of the file, which has its own limit.
                if !node.input.is_empty() {
                    self.foldable = self
                        .foldable
                        .checked_sub(tensor.elements.len())
                        .ok_or("what is computed at load has too many elements together")?;
                }
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
        if let Some(left) = self.left_after(&view, &facts) {
            self.foldable = left;
            return Ok(Some(self.fold(&view, facts, &kernel)));
        }
        let known = view.known.into_inner();
        let needed = |(place, name): (usize, &'a String)| {
            (!name.is_empty() && !known.contains(&place)).then_some(name.as_str())
        };
        let inputs = names.into_iter().enumerate().map(needed).collect();
        self.makers.extend(node.output.iter().map(|name| (name.as_str(), node)));
        self.steps.push(Checked { node, inputs, kernel });
        Ok(Some(facts))
    }

    /// The node as one step with the one before it, if there is such a step, and that step's inputs.
    fn fused(
        &self,
        operator: &Operator,
        node: &'a NodeProto,
        view: &NodeView<'_>,
    ) -> Result<Option<(Built, Vec<&'a String>)>, String> {
        let Some(link) = node.input.first() else { return Ok(None) };
        let Some(first) = self.makers.get(link.as_str()).copied() else { return Ok(None) };
        let only = self.readers.get(link.as_str()) == Some(&1);
        let fusion = operator.fusions.iter().find(|f| f.first == first.op_type);
        let Some(fusion) = fusion.filter(|fusion| only || !fusion.alone) else { return Ok(None) };
        let Some(before) = self.view(first)? else { return Ok(None) };
        let names = first.input.iter().chain(node.input.iter().skip(1)).collect();
        Ok((fusion.build)(&before, view)?.map(|built| (built, names)))
    }

    /// A node and what is known of its inputs. `Ok(None)`: one of them comes from a refused node.
    fn view(&self, node: &'a NodeProto) -> Result<Option<NodeView<'a>>, String> {
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
        Ok(Some(NodeView::new(
            Attributes::of(node),
            self.model.opset,
            inputs,
            node.input.iter().map(place).collect(),
            node.output.iter().map(|o| self.readers.contains_key(o)).collect(),
        )))
    }

    /// How many elements may still be computed now after these, if these may.
    fn left_after(&self, view: &NodeView<'_>, facts: &[Fact]) -> Option<usize> {
        let constant = view.inputs.iter().flatten().all(|fact| fact.constant.is_some());
        let small = facts.iter().all(|fact| fact.count() <= MAX_FOLDED_ELEMENTS);
        let left = facts.iter().try_fold(self.foldable, |left, f| left.checked_sub(f.count()));
        left.filter(|_| constant && small)
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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use crate::graph::{Graph, Sizes};
    use crate::onnx::{GraphWriter, Model};

    fn refusal(writer: GraphWriter) -> String {
        let model = Model::parse(writer.finish().unwrap()).unwrap();
        let inputs = Sizes::batch(1).inputs(&model).unwrap();
        Graph::load(model, &inputs, &Device::flex()).err().unwrap().to_string()
    }

    fn begun() -> GraphWriter {
        GraphWriter::new("g").input("x", &[None, Some(2)])
    }

    #[test]
    fn a_graph_without_an_output_is_refused() {
        let text = refusal(begun().node("Softmax", &["x"], &["y"], vec![]));
        assert!(text.contains("the graph has no output"), "{text}");
    }

    #[test]
    fn an_output_that_nothing_computes_is_refused() {
        for name in ["z", ""] {
            let writer = begun().output(name, &[None]).node("Relu", &["x"], &["y"], vec![]);
            let text = refusal(writer);
            assert!(text.contains(&format!("'{name}' is not a value")), "{text}");
        }
    }

    #[test]
    fn two_values_of_one_name_are_refused() {
        for taken in ["x", "w", "a"] {
            let writer = begun()
                .output("y", &[None])
                .floats("w", &[2], &[1.0, 2.0])
                .node("Relu", &["x"], &["a"], vec![])
                .node("Mul", &["a", "w"], &[taken], vec![])
                .node("Add", &["a", taken], &["y"], vec![]);
            let text = refusal(writer);
            assert!(text.contains(&format!("its output '{taken}' has the name")), "{text}");
        }
    }
}
