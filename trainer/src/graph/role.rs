//! What a weight is for. What trains is decided here and nowhere else: by role, never by
//! type or by name, so that a Clip limit or a Reshape target is not "learned".
//!
//! A weight used in several places trains only if every use lets it. Through shape-only nodes
//! (Identity, Transpose, Reshape) the role of what follows counts.

use std::collections::{HashMap, HashSet};

use onnx_ir::NodeProto;
use serde::{Deserialize, Serialize};

use crate::onnx::Model;
use crate::ops;

/// What a weight is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A matrix or a kernel: trained, with weight decay.
    Weight,
    /// Added to a result: trained, without weight decay.
    Bias,
    /// The factor of a normalisation or a learned scale: trained, without weight decay.
    Scale,
    /// A running mean of a normalisation: follows the data, no gradient.
    RunningMean,
    /// A running variance of a normalisation: follows the data, no gradient.
    RunningVariance,
    /// Anything else; never changed.
    Constant,
    /// Not decided by this node but by who uses its output.
    Through,
}

impl Role {
    /// Whether gradients change it.
    pub fn trains(self) -> bool {
        matches!(self, Role::Weight | Role::Bias | Role::Scale)
    }

    /// Whether training changes it at all.
    pub fn changes(self) -> bool {
        self.trains() || matches!(self, Role::RunningMean | Role::RunningVariance)
    }

    /// Whether weight decay pulls it towards zero.
    pub fn decays(self) -> bool {
        self == Role::Weight
    }

    fn joined(self, other: Role) -> Role {
        match (self, other) {
            (a, b) if a == b => a,
            (a, b) if a.trains() && b.trains() => Role::Weight,
            _ => Role::Constant,
        }
    }
}

/// Who uses which value at which input.
pub struct Uses<'a> {
    by_name: HashMap<&'a str, Vec<(&'a NodeProto, usize)>>,
    outputs: Vec<&'a str>,
}

impl<'a> Uses<'a> {
    /// Collects the uses of every value of a graph.
    pub fn of(model: &'a Model) -> Self {
        let outputs = model.outputs.iter().map(|o| o.name.as_str()).collect();
        let mut by_name: HashMap<&str, Vec<(&NodeProto, usize)>> = HashMap::new();
        for node in &model.proto.graph.node {
            for (place, name) in node.input.iter().enumerate() {
                by_name.entry(name).or_default().push((node, place));
            }
        }
        Self { by_name, outputs }
    }

    /// Whether all that happens to a value is that it is dequantized.
    fn is_dequantized(&self, name: &str) -> bool {
        let uses = self.by_name.get(name).filter(|_| !self.outputs.contains(&name));
        uses.is_some_and(|uses| uses.iter().all(dequantizes))
    }

    /// The only node that uses a value, if it dequantizes it.
    pub fn dequantizer(&self, name: &str) -> Option<&'a NodeProto> {
        match self.by_name.get(name)?.as_slice() {
            [only] if dequantizes(only) && !self.outputs.contains(&name) => Some(only.0),
            _ => None,
        }
    }

    /// The role of the weight `name` with `elements` elements: what all its uses agree on, those
    /// behind nodes that only pass it on included.
    pub fn role<'n>(&self, name: &'n str, elements: usize) -> Role
    where
        'a: 'n,
    {
        if elements == 0 {
            return Role::Constant;
        }
        let mut role: Option<Role> = None;
        let (mut open, mut seen) = (vec![name], HashSet::from([name]));
        while let Some(name) = open.pop() {
            let Some(uses) = self.by_name.get(name).filter(|_| !self.outputs.contains(&name))
            else {
                return Role::Constant;
            };
            for (node, place) in uses {
                match (ops::role(node, *place, elements), node.output.first()) {
                    // Levels have a gradient only where they are dequantized at once.
                    (Role::Through, Some(next))
                        if node.op_type == "QuantizeLinear" && !self.is_dequantized(next) =>
                    {
                        return Role::Constant;
                    }
                    (Role::Through, Some(next)) => {
                        if seen.insert(next) {
                            open.push(next);
                        }
                    }
                    (Role::Through, None) => return Role::Constant,
                    (found, _) => role = Some(role.map_or(found, |role| role.joined(found))),
                }
            }
        }
        role.unwrap_or(Role::Constant)
    }
}

fn dequantizes((node, place): &(&NodeProto, usize)) -> bool {
    *place == 0 && node.op_type == "DequantizeLinear"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::GraphWriter;

    #[test]
    fn a_weight_with_more_ways_to_its_use_than_can_be_walked_has_a_role() {
        let mut writer = GraphWriter::new("many").floats("v0", &[1], &[1.0]);
        for layer in 0..60 {
            let (from, to) = (format!("v{layer}"), format!("v{}", layer + 1));
            writer = writer.node("Concat", &[from.as_str(); 8], &[&to], vec![]);
        }
        let writer = writer.node("MatMul", &["x", "v60"], &["y"], vec![]);
        let model = Model::parse(writer.finish().unwrap()).unwrap();
        assert_eq!(Uses::of(&model).role("v0", 1), Role::Weight);
    }
}
