//! One backend test: a model, its inputs and the outputs it has to give.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::damage;
use burn::tensor::Device;
use onnx_ir::{Message as _, TensorProto};
use trainer::graph::{Context, Fact, Graph, GraphError};
use trainer::onnx::{Element, Elements, HostTensor, Kind, Model};
use trainer::ops::{self, tensor};
use trainer::random::Random;

/// Tolerances of ONNX's own runner.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-7;

/// Two units in the last place of a 16-bit float: the expected values of such tests were rounded
/// after every operation, ours are computed in 32 bits.
const RELATIVE_F16: f64 = 2.0 / 1024.0;
const RELATIVE_BF16: f64 = 2.0 / 128.0;

/// Floats of at most this many elements may be known at load in the second try: scales, limits.
const FEW: usize = 8;

/// What came of a test.
pub enum Outcome {
    /// It has operators that the table has not.
    NotOurs(Vec<String>),
    /// Every output is right; `bound`: with integers and small inputs known at load.
    Passed { bound: bool },
    /// The model was not loaded, and why.
    Refused(String),
    /// Something else.
    Failed(String),
}

/// One test.
pub struct Case {
    pub name: String,
    folder: PathBuf,
}

impl Case {
    /// All tests that `cargo xtask setup` has put in place.
    pub fn all() -> Vec<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../.fleetloop/onnx-backend-tests-1.23.2");
        let mut cases = Vec::new();
        for suite in std::fs::read_dir(&root).expect("cargo xtask setup makes the backend tests") {
            for folder in std::fs::read_dir(suite.unwrap().path()).unwrap() {
                let folder = folder.unwrap().path();
                let name = folder.file_name().unwrap().to_string_lossy().into_owned();
                cases.push(Self { name, folder });
            }
        }
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        cases
    }

    /// Runs it.
    pub fn outcome(&self) -> Outcome {
        let bytes = std::fs::read(self.folder.join("model.onnx")).unwrap();
        let model = match Model::parse(bytes.clone()) {
            Ok(model) => model,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let missing = missing(&model);
        if !missing.is_empty() {
            return Outcome::NotOurs(missing);
        }
        let work = || {
            self.run(model).or_else(|first| match first {
                Outcome::Refused(_) => self.run_bound(Model::parse(bytes).unwrap()),
                other => Err(other),
            })
        };
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(passed)) | Ok(Err(passed)) => passed,
            Err(_) => Outcome::Failed("it panics".into()),
        }
    }

    /// Loads and runs the model with something changed, everything small known at load: whether it
    /// loads, or an error when that panics.
    pub fn run_damaged(&self, random: &mut Random) -> std::thread::Result<bool> {
        let bytes = std::fs::read(self.folder.join("model.onnx")).unwrap();
        let mut attempt = || {
            let model = Model::parse(damage::model(&bytes, random)?).ok()?;
            let mut inputs = self.tensors("input", model.inputs.len()).ok()?;
            damage_inputs(&mut inputs, random);
            let (device, facts) = (Device::flex(), Self::facts(&inputs, Self::small));
            let graph = Graph::load(model, &facts, &device).ok()?;
            let plan = graph.plan(&facts, &graph.outputs()).ok()?;
            graph.plan(&facts, &[graph.logits()]).ok()?;
            let values = inputs.iter().map(|tensor| tensor::upload(tensor, &device)).collect();
            Some(plan.run(&graph.parameters.fixed(), values, &mut Context::infer(&device)))
        };
        catch_unwind(AssertUnwindSafe(|| attempt().is_some()))
    }

    fn run(&self, model: Model) -> Result<Outcome, Outcome> {
        self.check(model, |_| false).map(|()| Outcome::Passed { bound: false })
    }

    fn run_bound(&self, model: Model) -> Result<Outcome, Outcome> {
        self.check(model, Self::small).map(|()| Outcome::Passed { bound: true })
    }

    fn small(x: &HostTensor) -> bool {
        x.element.kind() != Kind::Float || x.elements.len() <= FEW
    }

    fn facts(inputs: &[HostTensor], known: impl Fn(&HostTensor) -> bool) -> Vec<Fact> {
        let fact = |tensor: &HostTensor| {
            let fact = Fact::constant(Arc::new(tensor.clone()));
            if known(tensor) { fact } else { fact.reshaped(fact.dims.clone()) }
        };
        inputs.iter().map(fact).collect()
    }

    fn check(&self, model: Model, known: impl Fn(&HostTensor) -> bool) -> Result<(), Outcome> {
        let failed = Outcome::Failed;
        let device = Device::flex();
        let inputs = self.tensors("input", model.inputs.len()).map_err(Outcome::Refused)?;
        let wanted = self.tensors("output", model.outputs.len()).map_err(Outcome::Refused)?;
        let facts = Self::facts(&inputs, known);
        let graph = match Graph::load(model, &facts, &device) {
            Ok(graph) => graph,
            Err(GraphError::Refused(refusals)) => {
                return Err(Outcome::Refused(refusals[0].to_string()));
            }
            Err(error) => return Err(Outcome::Refused(error.to_string())),
        };
        let plan = graph.plan(&facts, &graph.outputs()).map_err(|e| failed(e.to_string()))?;
        let values = inputs.iter().map(|tensor| tensor::upload(tensor, &device)).collect();
        let leaves = graph.parameters.fixed();
        let got = plan.run(&leaves, values, &mut Context::infer(&device));
        for (place, (value, want)) in got.into_iter().zip(&wanted).enumerate() {
            let fact = &plan.outputs[place].fact;
            if fact.element != want.element || fact.dims != want.shape {
                return Err(failed(format!(
                    "output {place} is {:?} {:?}, not {:?} {:?}",
                    fact.element, fact.dims, want.element, want.shape
                )));
            }
            compare(&tensor::download(value), want)
                .map_err(|why| failed(format!("output {place}: {why}")))?;
        }
        Ok(())
    }

    fn tensors(&self, kind: &str, count: usize) -> Result<Vec<HostTensor>, String> {
        (0..count)
            .map(|number| {
                let path = self.folder.join(format!("test_data_set_0/{kind}_{number}.pb"));
                let bytes = std::fs::read(path).map_err(|_| "no such tensor file".to_owned())?;
                let proto = TensorProto::parse_from_bytes(&bytes).map_err(|e| e.to_string())?;
                HostTensor::read(&proto).map_err(|e| e.to_string())
            })
            .collect()
    }
}

/// The inputs with a shape or an integer changed.
fn damage_inputs(inputs: &mut [HostTensor], random: &mut Random) {
    let which = random.below(inputs.len().max(1));
    let Some(input) = inputs.get_mut(which) else { return };
    if let Elements::Int(values) = &mut input.elements
        && !values.is_empty()
    {
        let place = random.below(values.len());
        values[place] = damage::number(random);
    } else if !input.shape.is_empty() && random.below(2) == 0 {
        // Other sizes of the same product: an axis more, or two axes in another order.
        let (a, b) = (random.below(input.shape.len()), random.below(input.shape.len()));
        input.shape.swap(a, b);
        if random.below(2) == 0 {
            input.shape.insert(a, 1);
        }
    }
}

fn missing(model: &Model) -> Vec<String> {
    let mut names: Vec<String> = model
        .proto
        .graph
        .node
        .iter()
        .filter(|node| !ops::table().any(|operator| operator.name == node.op_type))
        .map(|node| node.op_type.clone())
        .collect();
    names.dedup();
    names
}

fn compare(got: &Elements, want: &HostTensor) -> Result<(), String> {
    let relative = match want.element {
        Element::Bf16 => RELATIVE_BF16,
        Element::F16 => RELATIVE_F16,
        _ => RELATIVE,
    };
    let want = &want.elements;
    if got.len() != want.len() {
        return Err(format!("{} elements instead of {}", got.len(), want.len()));
    }
    match (got, want) {
        (Elements::Float(got), Elements::Float(want)) => close(got, want, relative),
        (got, want) if got == want => Ok(()),
        _ => Err(format!("{} instead of {}", shown(got), shown(want))),
    }
}

fn shown(elements: &Elements) -> String {
    let mut text = format!("{elements:?}");
    text.truncate(90);
    text
}

fn close(got: &[f32], want: &[f32], relative: f64) -> Result<(), String> {
    for (place, (g, w)) in got.iter().zip(want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan());
        let (g, w) = (f64::from(*g), f64::from(*w));
        let near = (g - w).abs() <= ABSOLUTE + relative * w.abs();
        if !same && !near {
            return Err(format!("place {place} is {g} instead of {w}"));
        }
    }
    Ok(())
}
