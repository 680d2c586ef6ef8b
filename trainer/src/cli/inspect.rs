//! `trainer inspect`

use std::fmt;
use std::path::PathBuf;

use burn::tensor::Device;
use clap::Args;
use fleetloop_models::bundle::{Bundle, OutputKind, PreprocessSpec};
use fleetloop_models::graph as checked;
use fleetloop_models::session::{Network, Runtime, Threads};
use fleetloop_observe::output::Output;
use serde::Serialize;

use crate::chain::chain;
use crate::graph::{Graph, GraphError, Role, Sizes};
use crate::onnx::Model;

#[derive(Debug, Args)]
pub struct Inspect {
    /// An ONNX file or a bundle's folder. The command ends with 0 if it can be trained.
    model: PathBuf,
    /// A size that the file leaves open, such as height=320; one for each.
    #[arg(long = "size", value_name = "NAME=SIZE", value_parser = super::size)]
    sizes: Vec<(String, usize)>,
    /// Samples at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// ONNX Runtime's library; searched for if not given. Without it is not tried whether the model runs.
    #[arg(long, env = "FLEETLOOP_ORT_LIB")]
    library: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Findings {
    operator_set: i64,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// What the output is: logits, softmax or sigmoid; none when the graph does not show it.
    output: Option<OutputKind>,
    /// The output that holds it.
    answer: String,
    /// Mean and deviation of a bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    preprocess: Option<PreprocessSpec>,
    nodes: usize,
    trainable: bool,
    parameters: Vec<Found>,
    trained_elements: usize,
    /// For the batch that was asked for.
    multiply_adds: u64,
    parameter_bytes: u64,
    value_bytes: u64,
    unsupported: Vec<String>,
    /// Whether ONNX Runtime loads it; none where that is not there to try.
    runs: Option<bool>,
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
        let (bytes, bundle) = if self.model.is_dir() {
            let bundle = Bundle::open(&self.model, None)?;
            (bundle.graph().bytes().to_vec(), Some(bundle))
        } else {
            (super::model(&self.model)?.bytes, None)
        };
        let sizes =
            Sizes { batch: usize::from(self.batch), named: self.sizes.iter().cloned().collect() };
        let mut findings = findings(&bytes, &sizes)?;
        if let Some(bundle) = bundle {
            findings.output = Some(bundle.manifest().output);
            findings.preprocess = Some(bundle.manifest().preprocess.clone());
        }
        if let Ok(runtime) = Runtime::load(self.library.as_deref()) {
            let graph = checked::Graph::check(bytes)?;
            let opened =
                Network::open(&runtime, &graph, self.model.display().to_string(), Threads(1));
            findings.runs = Some(opened.is_ok());
            findings.unsupported.extend(opened.err().map(|error| chain(&error)));
            findings.trainable &= findings.runs == Some(true);
        }
        output.print(&findings, Findings::to_string)?;
        anyhow::ensure!(
            findings.trainable,
            "{} cannot be trained: {}",
            self.model.display(),
            match findings.unsupported.as_slice() {
                [] => "none of its weights trains".to_owned(),
                reasons => reasons.join("; "),
            }
        );
        Ok(())
    }
}

/// What a file is. Whether it trains is asked as training does: for a batch of several samples too.
fn findings(bytes: &[u8], sizes: &Sizes) -> anyhow::Result<Findings> {
    let model = Model::parse(bytes.to_vec())?;
    let names = |values: &[crate::onnx::read::DeclaredValue]| {
        values.iter().map(|v| format!("{v}")).collect()
    };
    let mut findings = Findings {
        operator_set: model.opset,
        inputs: names(&model.inputs),
        outputs: names(&model.outputs),
        output: model.reading.as_ref().and_then(|reading| reading.meaning.kind()),
        answer: model.answer().map(|output| output.name.clone()).unwrap_or_default(),
        preprocess: None,
        nodes: model.proto.graph.node.len(),
        trainable: false,
        parameters: Vec::new(),
        trained_elements: 0,
        multiply_adds: 0,
        parameter_bytes: 0,
        value_bytes: 0,
        unsupported: Vec::new(),
        runs: None,
    };
    let several = Sizes { batch: sizes.batch + 1, ..sizes.clone() };
    match loaded(model, sizes).and_then(|graph| trains_with(graph, &several)) {
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

fn loaded(model: Model, sizes: &Sizes) -> Result<Graph, GraphError> {
    let inputs = sizes.inputs(&model)?;
    Graph::load_answer(model, &inputs, &Device::flex())
}

/// The graph, if it can be planned for another batch as well, and answers with a row a sample.
fn trains_with(graph: Graph, sizes: &Sizes) -> Result<Graph, GraphError> {
    let inputs = sizes.inputs(&graph.model)?;
    let plan = graph.plan(&inputs, &[graph.answer()])?;
    if plan.outputs[0].fact.dims.first() != Some(&sizes.batch) {
        return Err(GraphError::Shape(format!(
            "for a batch of {} its output is {}: a batch of 1 is written into the graph; export it with \
             an open batch",
            sizes.batch, plan.outputs[0].fact
        )));
    }
    Ok(graph)
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "operator set {}, {} nodes", self.operator_set, self.nodes)?;
        writeln!(f, "inputs   {}", self.inputs.join(", "))?;
        writeln!(f, "outputs  {}", self.outputs.join(", "))?;
        match self.output {
            Some(kind) => writeln!(f, "answer   {}: {kind}", self.answer)?,
            None => writeln!(
                f,
                "answer   {}: scores or probabilities, the graph does not show which; say it with --output",
                self.answer
            )?,
        }
        if let Some(spec) = &self.preprocess {
            writeln!(f, "{}", super::prepared(spec))?;
        }
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
        match self.runs {
            Some(true) => writeln!(f, "ONNX Runtime loads it")?,
            Some(false) => {}
            None => writeln!(f, "ONNX Runtime is not here: whether it loads it was not tried")?,
        }
        if !self.unsupported.is_empty() {
            writeln!(f, "cannot be trained:")?;
            self.unsupported.iter().try_for_each(|why| writeln!(f, "  - {why}"))?;
        }
        Ok(())
    }
}
