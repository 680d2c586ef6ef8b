//! One-node graphs for operator tests, and gradient checks by central differences.
//!
//! A case is a real ONNX file read and planned as any other, for the input shape given to
//! [`Case::new`].

use std::collections::HashMap;

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Device, Tensor as Flat};
use onnx_ir::{AttributeProto, AttributeType};

use super::tensor;
use crate::graph::{Context, Fact, Graph, Mode, Plan, Role};
use crate::onnx::{Elements, GraphWriter, Model, patch};
use crate::random::Random;

/// A graph from `x` to `y`.
pub struct Case {
    shape: Vec<usize>,
    writer: Option<GraphWriter>,
    bytes: Vec<u8>,
    random: Random,
}

/// 1, 2, 3, …
pub fn sequence(count: usize) -> Vec<f32> {
    (1..=count).map(|v| v as f32).collect()
}

/// A text attribute.
pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        s: value.as_bytes().to_vec().into(),
        type_: AttributeType::STRING.into(),
        ..Default::default()
    }
}

/// A list of floats as an attribute.
pub fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        floats: values.to_vec(),
        type_: AttributeType::FLOATS.into(),
        ..Default::default()
    }
}

/// Asserts that two lists agree within `tolerance`.
pub fn near(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (place, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance, "place {place}: {g} instead of {w}");
    }
}

impl Case {
    pub fn new(shape: &[usize]) -> Self {
        let mut declared: Vec<Option<usize>> = shape.iter().map(|d| Some(*d)).collect();
        declared[0] = None;
        let writer = GraphWriter::new("case").input("x", &declared).output("y", &[]);
        Self {
            shape: shape.to_vec(),
            writer: Some(writer),
            bytes: Vec::new(),
            random: Random::new(11),
        }
    }

    fn with(mut self, change: impl FnOnce(GraphWriter) -> GraphWriter) -> Self {
        self.writer = self.writer.map(change);
        self
    }

    pub fn opset(self, version: i64) -> Self {
        self.with(|w| w.opset(version))
    }

    pub fn floats(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.with(|w| w.floats(name, shape, values))
    }

    /// An initializer of 8-bit integers.
    pub fn levels(self, name: &str, shape: &[usize], values: &[i8]) -> Self {
        self.with(|w| w.levels(name, shape, values))
    }

    /// An initializer with elements of magnitude 0.5 to 1.5, so that dividing by it is harmless.
    pub fn random(mut self, name: &str, shape: &[usize]) -> Self {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                let size = self.random.between(0.5, 1.5);
                if self.random.unit() < 0.5 { -size } else { size }
            })
            .collect();
        self.floats(name, shape, &values)
    }

    pub fn ints(self, name: &str, values: &[i64]) -> Self {
        self.with(|w| w.ints(name, values))
    }

    /// A node before the last.
    pub fn inner(
        self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) -> Self {
        self.with(|w| w.node(op, inputs, &[output], attributes))
    }

    /// The last node, which gives `y`.
    pub fn node(self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> Self {
        self.outputs(op, inputs, &["y"], attributes)
    }

    /// A last node with several outputs, one of which is `y`.
    pub fn outputs(
        mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Self {
        let writer = self.writer.take().expect("one last node");
        self.bytes = writer.node(op, inputs, outputs, attributes).finish().expect("serialises");
        self
    }

    fn input(&self) -> Fact {
        Fact::float(self.shape.clone())
    }

    fn try_load(&self) -> Result<Graph, crate::graph::GraphError> {
        let model = Model::parse(self.bytes.clone()).expect("reads");
        Graph::load(model, &[self.input()], &Device::flex())
    }

    fn load(&self) -> (Graph, Plan) {
        let graph = self.try_load().expect("loads");
        let plan = graph.plan(&[self.input()], &graph.outputs()).expect("plans");
        (graph, plan)
    }

    /// The reason why the file is not loaded.
    pub fn refusal(&self) -> String {
        self.try_load().err().expect("refused").to_string()
    }

    pub fn roles(&self) -> Vec<Role> {
        self.load().0.parameters.list.iter().map(|p| p.role).collect()
    }

    /// The output in use.
    pub fn run(&self, x: &[f32]) -> Vec<f32> {
        let (graph, plan) = self.load();
        let device = Device::flex();
        let x = tensor::from_host(x.to_vec(), &self.shape, &device);
        let mut context = Context::infer(&device);
        let out = plan.run(&graph.parameters.fixed(), vec![x], &mut context).remove(0);
        let promised = crate::graph::at_least_one(&plan.outputs[0].fact.dims);
        assert_eq!(tensor::dims(&out), promised, "the shape promised is the shape computed");
        match tensor::download(out) {
            Elements::Float(v) => v,
            Elements::Int(v) => v.iter().map(|v| *v as f32).collect(),
            Elements::Bool(v) => v.iter().map(|v| f32::from(u8::from(*v))).collect(),
        }
    }

    /// The output's shape, which is also what is computed.
    pub fn output_shape(&self) -> Vec<usize> {
        self.run(&vec![0.5; self.shape.iter().product()]);
        self.load().1.outputs[0].fact.dims.clone()
    }

    /// The output in use for other parameters, also once those are written into the file.
    pub fn run_changed(&self, x: &[f32], change: impl Fn(&mut [f32])) -> (Vec<f32>, Vec<f32>) {
        let (mut graph, plan) = self.load();
        let device = Device::flex();
        for parameter in &mut graph.parameters.list {
            let mut values = parameter.to_host();
            change(&mut values);
            parameter.set(Flat::from_floats(values.as_slice(), &device));
        }
        let input = tensor::from_host(x.to_vec(), &self.shape, &device);
        let mut context = Context::infer(&device);
        let out = plan.run(&graph.parameters.fixed(), vec![input], &mut context).remove(0);
        let bytes = patch(&self.bytes, &graph.parameters.stored()).expect("is written").bytes;
        let written = Self { bytes, shape: self.shape.clone(), ..Self::new(&self.shape) };
        (tensor::to_host(out), written.run(x))
    }

    /// The gradients of `x` and of every parameter when the output's is `weights`.
    pub fn gradients(&self, x: &[f32], weights: &[f32]) -> Vec<Vec<f32>> {
        let (graph, plan) = self.load();
        let device = Device::flex().autodiff();
        let x = Flat::<1>::from_floats(x, &device).require_grad();
        let mut leaves = graph.parameters.leaves();
        let input = tensor::reshape(x.clone().into_dispatch(), &self.shape);
        let mut context = Context::infer(&device);
        let out = plan.run(&leaves, vec![input], &mut context).remove(0);
        let weights = tensor::from_host(weights.to_vec(), &tensor::dims(&out), &device);
        let sum = Dispatch::float_sum(Dispatch::float_mul(out, weights));
        let mut found = Flat::<1>::from_dispatch(tensor::reshape(sum, &[1])).backward();
        leaves.insert(0, x);
        let host = |leaf: Flat<1>| {
            let gradient = leaf.grad_remove(&mut found).expect("a gradient");
            gradient.into_data().iter::<f32>().collect()
        };
        leaves.into_iter().map(host).collect()
    }

    /// A training pass: the output, and the parameters once statistics have followed.
    pub fn train(&self, x: &[f32]) -> (Vec<f32>, HashMap<String, Vec<f32>>) {
        let (mut graph, plan) = self.load();
        let device = Device::flex().autodiff();
        let mut context = Context::train(&device, Random::new(5));
        let x = tensor::from_host(x.to_vec(), &self.shape, &device);
        let out = plan.run(&graph.parameters.leaves(), vec![x], &mut context).remove(0);
        graph.parameters.observe(context.observed);
        (tensor::to_host(out), graph.parameters.values())
    }

    /// Gradients of a weighted sum of the output, in use.
    pub fn check_gradients(&self) {
        self.check(Mode::Infer);
    }

    /// Gradients of a weighted sum of the output, while training.
    pub fn check_training_gradients(&self) {
        self.check(Mode::Train);
    }

    fn check(&self, mode: Mode) {
        const STEP: f32 = 1e-2;
        let (graph, plan) = self.load();
        let device = Device::flex().autodiff();
        let mut random = Random::new(3);
        let mut values: Vec<Vec<f32>> =
            graph.parameters.list.iter().map(super::super::graph::Parameter::to_host).collect();
        // Well apart, so that a maximum or a kink does not change sides within the step.
        let count: usize = self.shape.iter().product();
        let mut x: Vec<f32> =
            (0..count).map(|i| (i as f32 + 0.5 - (count / 2) as f32) * 4.0 * STEP).collect();
        random.shuffle(&mut x);
        values.push(x);

        let leaves = |values: &[Vec<f32>]| -> Vec<Flat<1>> {
            values
                .iter()
                .map(|v| Flat::<1>::from_floats(v.as_slice(), &device).require_grad())
                .collect()
        };
        let weights = std::cell::RefCell::new(Vec::new());
        let loss = |leaves: &[Flat<1>]| -> Flat<1> {
            let (x, parameters) = leaves.split_last().expect("x is last");
            let mut context = Context { mode, ..Context::infer(&device) };
            let x = tensor::reshape(x.clone().into_dispatch(), &self.shape);
            let out = plan.run(parameters, vec![x], &mut context).remove(0);
            let shape = tensor::dims(&out);
            let mut weights = weights.borrow_mut();
            if weights.is_empty() {
                let mut random = Random::new(9);
                weights.extend((0..shape.iter().product()).map(|_| random.between(-1.0, 1.0)));
            }
            let weighted =
                Dispatch::float_mul(out, tensor::from_host(weights.clone(), &shape, &device));
            Flat::from_dispatch(tensor::reshape(Dispatch::float_sum(weighted), &[1]))
        };
        let at = |values: &[Vec<f32>]| {
            f64::from(loss(&leaves(values)).into_data().iter::<f32>().next().expect("one number"))
        };

        let base = leaves(&values);
        let mut gradients = loss(&base).backward();
        for (which, leaf) in base.iter().enumerate() {
            let changes = graph.parameters.list.get(which).is_none_or(|p| p.role.trains());
            if !changes {
                continue;
            }
            let got: Vec<f32> = leaf
                .grad_remove(&mut gradients)
                .expect("a gradient")
                .into_data()
                .iter::<f32>()
                .collect();
            let size = got.iter().fold(0f32, |m, v| m.max(v.abs())).max(0.1);
            for place in 0..got.len() {
                let mut shifted = |by: f32| {
                    values[which][place] += by;
                    let loss = at(&values);
                    values[which][place] -= by;
                    loss
                };
                let want = ((shifted(STEP) - shifted(-STEP)) / f64::from(2.0 * STEP)) as f32;
                assert!(
                    (got[place] - want).abs() <= 5e-3 * size,
                    "value {which}, place {place}: {} instead of {want}",
                    got[place]
                );
            }
        }
    }
}
