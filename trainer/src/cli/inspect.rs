//! `trainer inspect`

use std::fmt;
use std::path::PathBuf;

use burn::tensor::Device;
use clap::Args;
use fleetloop_models::bundle::Bundle;
use fleetloop_observe::output::Output;
use serde::Serialize;

use crate::graph::{Graph, GraphError, Role, Sizes};
use crate::onnx::Model;

#[derive(Debug, Args)]
pub struct Inspect {
    /// An ONNX file or a bundle's folder.
    model: PathBuf,
    /// A size that the file leaves open, such as height=320; one for each.
    #[arg(long = "size", value_name = "NAME=SIZE", value_parser = super::size)]
    sizes: Vec<(String, usize)>,
    /// Samples at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
}

#[derive(Debug, Serialize)]
struct Findings {
    operator_set: i64,
    inputs: Vec<String>,
    outputs: Vec<String>,
    nodes: usize,
    trainable: bool,
    parameters: Vec<Found>,
    trained_elements: usize,
    /// For the batch that was asked for.
    multiply_adds: u64,
    parameter_bytes: u64,
    value_bytes: u64,
    unsupported: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Found {
    name: String,
    role: Role,
    shape: Vec<usize>,
    trains: bool,
}

impl Inspect {
    pub fn run(&self, output: Output) -> anyhow::Result<()> {
        let bytes = if self.model.is_dir() {
            Bundle::open(&self.model, None)?.graph().bytes().to_vec()
        } else {
            super::model(&self.model)?.bytes
        };
        let sizes =
            Sizes { batch: usize::from(self.batch), named: self.sizes.iter().cloned().collect() };
        let findings = findings(Model::parse(bytes)?, &sizes)?;
        output.print(&findings, Findings::to_string)
    }
}

fn findings(model: Model, sizes: &Sizes) -> anyhow::Result<Findings> {
    let names = |values: &[crate::onnx::read::DeclaredValue]| {
        values.iter().map(|v| format!("{v}")).collect()
    };
    let mut findings = Findings {
        operator_set: model.opset,
        inputs: names(&model.inputs),
        outputs: names(&model.outputs),
        nodes: model.proto.graph.node.len(),
        trainable: false,
        parameters: Vec::new(),
        trained_elements: 0,
        multiply_adds: 0,
        parameter_bytes: 0,
        value_bytes: 0,
        unsupported: Vec::new(),
    };
    let inputs = sizes.inputs(&model);
    match inputs.and_then(|inputs| Graph::load(model, &inputs, &Device::flex())) {
        Ok(graph) => {
            findings.multiply_adds = graph.cost.multiply_adds;
            findings.parameter_bytes = graph.cost.parameter_bytes;
            findings.value_bytes = graph.cost.value_bytes;
            for p in graph.parameters.list {
                if p.role.trains() {
                    findings.trainable = true;
                    findings.trained_elements += p.shape.iter().product::<usize>();
                }
                findings.parameters.push(Found {
                    trains: p.role.trains(),
                    name: p.name,
                    role: p.role,
                    shape: p.shape,
                });
            }
        }
        Err(GraphError::Refused(refusals)) => {
            findings.unsupported = refusals.iter().map(ToString::to_string).collect();
        }
        Err(GraphError::Shape(why)) => findings.unsupported.push(why),
        Err(other) => return Err(other.into()),
    }
    Ok(findings)
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "operator set {}, {} nodes", self.operator_set, self.nodes)?;
        writeln!(f, "inputs   {}", self.inputs.join(", "))?;
        writeln!(f, "outputs  {}", self.outputs.join(", "))?;
        for p in &self.parameters {
            let (role, trains) =
                (format!("{:?}", p.role), if p.trains { "" } else { "  (no gradient)" });
            writeln!(f, "  {:40} {role:16} {:?}{trains}", p.name, p.shape)?;
        }
        if self.trainable {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            writeln!(f, "{} values train", self.trained_elements)?;
            writeln!(f, "{:.1} million multiply-adds", self.multiply_adds as f64 / 1e6)?;
            writeln!(f, "{:.1} MB of parameters", mb(self.parameter_bytes))?;
            writeln!(f, "{:.1} MB of values at most in a training step", mb(self.value_bytes))?;
        }
        if !self.unsupported.is_empty() {
            writeln!(f, "cannot be trained:")?;
            self.unsupported.iter().try_for_each(|why| writeln!(f, "  - {why}"))?;
        }
        Ok(())
    }
}
