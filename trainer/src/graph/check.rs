//! Finds the operator for every node that the output needs, or the reason why not.
//!
//! Nodes are visited in the file's order, which ONNX requires to be one in which they can run. A
//! refused node does not stop the search: the nodes behind it are still looked up, so that one
//! report names all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use onnx_ir::NodeProto;

use super::{Fact, Refusal};
use crate::onnx::Model;
use crate::onnx::attributes::Attributes;
use crate::ops::{self, Built, NodeView};

/// A node and what was built for it.
pub struct Checked<'a> {
    pub node: &'a NodeProto,
    pub built: Built,
}

/// Checks every needed node. `parameters` are the initializers that training changes, by place.
pub fn check<'a>(
    model: &'a Model,
    input: (&'a str, Fact),
    parameters: &HashMap<&str, usize>,
) -> Result<Vec<Checked<'a>>, Vec<Refusal>> {
    let mut facts: HashMap<&str, Option<Fact>> = HashMap::from([(input.0, Some(input.1))]);
    for (name, tensor) in &model.initializers {
        let mut fact = Fact::constant(Arc::new(tensor.clone()));
        if parameters.contains_key(name.as_str()) {
            fact.constant = None;
        }
        facts.insert(name, Some(fact));
    }
    let (mut done, mut refusals) = (Vec::new(), Vec::new());
    for node in needed(model) {
        let built = check_node(node, model.opset, &facts, parameters);
        match built {
            Ok(Some(built)) => {
                match &built {
                    Built::Constant(fact) => {
                        facts.insert(&node.output[0], Some(fact.clone()));
                    }
                    Built::Step(outputs, _) => facts.extend(
                        node.output
                            .iter()
                            .map(String::as_str)
                            .zip(outputs.iter().cloned().map(Some)),
                    ),
                }
                done.push(Checked { node, built });
            }
            unknown => {
                facts.extend(node.output.iter().map(|name| (name.as_str(), None)));
                if let Err(why) = unknown {
                    refusals.push(Refusal { node: label(node), op: node.op_type.clone(), why });
                }
            }
        }
    }
    if refusals.is_empty() { Ok(done) } else { Err(refusals) }
}

/// `Ok(None)`: known operator, but an input comes from a refused node.
fn check_node(
    node: &NodeProto,
    opset: i64,
    facts: &HashMap<&str, Option<Fact>>,
    parameters: &HashMap<&str, usize>,
) -> Result<Option<Built>, String> {
    let operator = ops::find(node, opset)?;
    let mut inputs = Vec::with_capacity(node.input.len());
    for name in &node.input {
        if name.is_empty() {
            inputs.push(None);
            continue;
        }
        match facts.get(name.as_str()) {
            None => return Err(format!("its input '{name}' is not computed before it")),
            Some(None) => return Ok(None),
            Some(known) => inputs.push(known.clone()),
        }
    }
    let places = node.input.iter().map(|name| parameters.get(name.as_str()).copied()).collect();
    let outputs = node.output.iter().filter(|o| !o.is_empty()).count();
    let view =
        NodeView { attributes: Attributes::of(node), opset, inputs, parameters: places, outputs };
    let built = (operator.build)(&view)?;
    view.attributes.finish()?;
    Ok(Some(built))
}

/// The nodes that the first output depends on, in the file's order.
fn needed(model: &Model) -> Vec<&NodeProto> {
    let mut wanted: HashSet<&str> =
        model.outputs.first().map(|o| o.name.as_str()).into_iter().collect();
    let mut nodes = Vec::new();
    for node in model.proto.graph.node.iter().rev() {
        if node.output.iter().any(|o| wanted.contains(o.as_str())) {
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
