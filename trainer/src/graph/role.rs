//! What a weight is for. What trains is decided here and nowhere else: by role, never by
//! type or by name, so that a Clip limit or a Reshape target is not "learned".
//!
//! A weight used in several places trains only if every use lets it. Through shape-only nodes
//! (Identity, Transpose, Reshape) the role of what follows counts.

use std::collections::HashMap;

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

    /// The role of the weight `name` with `elements` elements.
    pub fn role(&self, name: &str, elements: usize) -> Role {
        self.follow(name, elements, 0)
    }

    fn follow(&self, name: &str, elements: usize, depth: usize) -> Role {
        const DEEPEST: usize = 16;
        if depth > DEEPEST || elements == 0 || self.outputs.contains(&name) {
            return Role::Constant;
        }
        self.by_name
            .get(name)
            .into_iter()
            .flatten()
            .map(|(node, place)| match ops::role(node, *place, elements) {
                Role::Through => node
                    .output
                    .first()
                    .map_or(Role::Constant, |out| self.follow(out, elements, depth + 1)),
                role => role,
            })
            .reduce(Role::joined)
            .unwrap_or(Role::Constant)
    }
}
