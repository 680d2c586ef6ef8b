//! Puts what a graph calls or chooses in the place where it does: the nodes of the file's functions, and
//! the branch of an `If` on a constant.

use std::collections::{HashMap, HashSet};

use onnx_ir::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::OnnxError;
use super::plain::{own_set, refuse};

/// The most nodes of a graph.
const NODES: usize = 1 << 18;
/// How deeply functions may call each other.
const CALLS_DEEP: usize = 32;

/// Puts the nodes of functions where they are called.
pub(super) fn functions(model: &mut ModelProto) -> Result<bool, OnnxError> {
    if model.functions.is_empty() {
        return Ok(false);
    }
    let set = own_set(model);
    let mut imports: Vec<_> = model.opset_import.iter().map(|o| o.domain.clone()).collect();
    for function in &model.functions {
        for import in &function.opset_import {
            let own = matches!(import.domain.as_str(), "" | "ai.onnx");
            if own && Some(import.version) != set {
                return Err(refuse(format!(
                    "its function '{}' uses operator set {}, the graph another",
                    function.name, import.version
                )));
            }
            if !own && !imports.contains(&import.domain) {
                imports.push(import.domain.clone());
                model.opset_import.push(import.clone());
            }
        }
    }
    let functions = std::mem::take(&mut model.functions);
    let known: HashMap<(&str, &str, &str), _> = functions
        .iter()
        .map(|f| ((f.domain.as_str(), f.name.as_str(), f.overload.as_str()), f))
        .collect();
    let mut nodes = std::mem::take(&mut model.graph.mut_or_insert_default().node);
    for deep in 0.. {
        let called = |node: &NodeProto| {
            known
                .get(&(node.domain.as_str(), node.op_type.as_str(), node.overload.as_str()))
                .copied()
        };
        if !nodes.iter().any(|node| called(node).is_some()) {
            break;
        }
        let mut put = Vec::new();
        for (place, node) in nodes.into_iter().enumerate() {
            let Some(function) = called(&node) else {
                put.push(node);
                continue;
            };
            if deep == CALLS_DEEP || put.len() > NODES {
                return Err(refuse(format!(
                    "its function '{}' is called too often or too deeply: at most {NODES} nodes and \
                     {CALLS_DEEP} functions inside each other",
                    function.name
                )));
            }
            let mut names = HashMap::from([(String::new(), String::new())]);
            // An input that the caller leaves out is left out inside too; an output is computed all the
            // same, under a name of its own.
            let given = node.input.iter().cloned().chain(std::iter::repeat(String::new()));
            names.extend(function.input.iter().cloned().zip(given));
            let taken = function.output.iter().zip(&node.output).filter(|(_, to)| !to.is_empty());
            names.extend(taken.map(|(from, to)| (from.clone(), to.clone())));
            let call = Call {
                names,
                prefix: format!("{}.{deep}.{place}/", function.name),
                given: &node.attribute,
                defaults: &function.attribute_proto,
            };
            put.extend(function.node.iter().map(|inner| call.node(inner)));
        }
        nodes = put;
    }
    let graph = model.graph.mut_or_insert_default();
    graph.node = nodes;
    // Nothing is left of their domains.
    let used: HashSet<String> = graph.node.iter().map(|node| node.domain.clone()).collect();
    let domains: HashSet<&str> = functions.iter().map(|f| f.domain.as_str()).collect();
    let gone = |domain: &str| domains.contains(domain) && !used.contains(domain);
    model.opset_import.retain(|import| !gone(&import.domain));
    Ok(true)
}

/// A call of a function.
struct Call<'a> {
    /// The caller's names for the function's inputs and outputs.
    names: HashMap<String, String>,
    /// What stands before every other name.
    prefix: String,
    given: &'a [AttributeProto],
    defaults: &'a [AttributeProto],
}

impl Call<'_> {
    fn name(&self, name: &str) -> String {
        self.names.get(name).cloned().unwrap_or_else(|| format!("{}{name}", self.prefix))
    }

    fn node(&self, node: &NodeProto) -> NodeProto {
        let mut node = node.clone();
        for name in node.input.iter_mut().chain(&mut node.output) {
            *name = self.name(name);
        }
        if !node.name.is_empty() {
            node.name = format!("{}{}", self.prefix, node.name);
        }
        let attributes = std::mem::take(&mut node.attribute);
        node.attribute = attributes.into_iter().filter_map(|a| self.attribute(a)).collect();
        node
    }

    /// An attribute as the call gives it; none when nobody does.
    fn attribute(&self, mut attribute: AttributeProto) -> Option<AttributeProto> {
        if !attribute.ref_attr_name.is_empty() {
            let mut all = self.given.iter().chain(self.defaults);
            let given = all.find(|given| given.name == attribute.ref_attr_name)?;
            let name = attribute.name;
            attribute = AttributeProto { name, ..given.clone() };
        }
        if let Some(graph) = attribute.g.as_mut() {
            self.graph(graph);
        }
        attribute.graphs.iter_mut().for_each(|graph| self.graph(graph));
        Some(attribute)
    }

    fn graph(&self, graph: &mut GraphProto) {
        let nodes = std::mem::take(&mut graph.node);
        graph.node = nodes.iter().map(|node| self.node(node)).collect();
        for value in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
            value.name = self.name(&value.name);
        }
        for tensor in &mut graph.initializer {
            tensor.name = self.name(&tensor.name);
        }
    }
}

/// Puts the branch in the place of every `If` whose condition the file holds.
pub(super) fn constant_choices(model: &mut ModelProto) -> Result<bool, OnnxError> {
    let Some(graph) = model.graph.as_mut() else { return Ok(false) };
    let mut changed = false;
    // A branch may hold a choice again.
    for _ in 0..CALLS_DEEP {
        let held = truths(graph);
        let choice = |node: &NodeProto| {
            let truth = held.get(node.input.first()?).filter(|_| node.op_type == "If")?;
            let wanted = if *truth { "then_branch" } else { "else_branch" };
            node.attribute.iter().find(|a| a.name == wanted)?.g.as_ref().cloned()
        };
        if !graph.node.iter().any(|node| choice(node).is_some()) {
            return Ok(changed);
        }
        changed = true;
        let (mut nodes, mut initializers) = (Vec::new(), Vec::new());
        for node in std::mem::take(&mut graph.node) {
            let Some(branch) = choice(&node) else {
                nodes.push(node);
                continue;
            };
            nodes.extend(branch.node);
            initializers.extend(branch.initializer);
            for (from, to) in
                branch.output.iter().zip(&node.output).filter(|(_, to)| !to.is_empty())
            {
                nodes.push(NodeProto {
                    op_type: "Identity".into(),
                    input: vec![from.name.clone()],
                    output: vec![to.clone()],
                    ..NodeProto::default()
                });
            }
        }
        graph.node = nodes;
        graph.initializer.extend(initializers);
    }
    Err(refuse("its If operators are nested too deeply".into()))
}

/// The single truth values that a graph holds, by name.
fn truths(graph: &GraphProto) -> HashMap<String, bool> {
    let truth = |tensor: &TensorProto| {
        let byte = tensor.raw_data.first().map(|byte| *byte != 0);
        byte.or(tensor.int32_data.first().map(|value| *value != 0))
            .filter(|_| tensor.data_type == 9)
    };
    let initializers = graph.initializer.iter().filter_map(|t| Some((t.name.clone(), truth(t)?)));
    let constants = graph.node.iter().filter(|node| node.op_type == "Constant");
    let constants = constants.filter_map(|node| {
        let value = node.attribute.iter().find(|a| a.name == "value")?.t.as_ref()?;
        Some((node.output.first()?.clone(), truth(value)?))
    });
    initializers.chain(constants).collect()
}
