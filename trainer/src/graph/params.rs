//! The values that training changes: weights, biases, scales and running statistics.
//!
//! Each is kept flat (one dimension), which is what an optimiser needs; a forward pass gives it its
//! shape. Those that train are leaves of the autodiff graph.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor as Flat, TensorData};

use super::levels::Levels;
use super::role::Uses;
use super::{Observation, Role};
use crate::onnx::read::Weight;
use crate::onnx::{Elements, Model};

/// One value that training changes.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Name of its value in the graph.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its shape in the graph.
    pub shape: Vec<usize>,
    /// Its elements, without autodiff.
    pub(super) value: Flat<1>,
    /// The levels that the file keeps, for a weight that is stored quantised.
    levels: Option<Levels>,
}

/// All values that training changes, in the order of the file.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// The parameters; a plan refers to them by place.
    pub list: Vec<Parameter>,
}

impl Parameter {
    pub(super) fn new(
        name: &str,
        role: Role,
        shape: &[usize],
        values: Vec<f32>,
        device: &Device,
    ) -> Self {
        let count = values.len();
        let value = Flat::from_data(TensorData::new(values, [count]), device);
        Self { name: name.to_owned(), role, shape: shape.to_vec(), value, levels: None }
    }

    /// Its elements, without autodiff.
    pub fn value(&self) -> Flat<1> {
        self.value.clone()
    }

    /// Replaces its elements.
    ///
    /// # Panics
    /// When the count differs: the optimiser's result is of the same shape by construction.
    pub fn set(&mut self, value: Flat<1>) {
        assert_eq!(value.dims(), self.value.dims(), "parameter {}", self.name);
        self.value = value.inner();
    }

    /// Changes its elements on the host; in place, where nobody else holds them.
    pub fn update(&mut self, change: impl FnOnce(&mut [f32])) {
        let device = self.value.device();
        let nothing = Flat::from_data(TensorData::new(Vec::<f32>::new(), [0]), &device);
        let mut values = host(std::mem::replace(&mut self.value, nothing));
        change(&mut values);
        let count = values.len();
        self.value = Flat::from_data(TensorData::new(values, [count]), &device);
    }

    /// Its elements on the host.
    pub fn to_host(&self) -> Vec<f32> {
        host(self.value.clone())
    }
}

impl Parameters {
    /// The initializers, and values in Constant nodes, that training changes.
    pub(super) fn of(model: &Model, device: &Device) -> Self {
        let uses = Uses::of(model);
        let weights: Vec<Weight<'_>> = model.weights().collect();
        let known = weights.iter().map(|weight| (weight.name, &*weight.tensor)).collect();
        let list = weights.iter().filter_map(|Weight { name, tensor, is_raw }| {
            let (values, levels) = match &tensor.elements {
                Elements::Float(values) => (values.clone(), None),
                Elements::Int(values) if *is_raw => {
                    let levels = Levels::of(uses.dequantizer(name)?, tensor, &known)?;
                    (levels.floats(values), Some(levels))
                }
                _ => return None,
            };
            let role = uses.role(name, values.len());
            let new = || Parameter::new(name, role, &tensor.shape, values, device);
            role.changes().then(|| Parameter { levels, ..new() })
        });
        Self { list: list.collect() }
    }

    /// The place of every parameter in the list.
    pub fn places(&self) -> HashMap<String, usize> {
        self.list.iter().enumerate().map(|(place, p)| (p.name.clone(), place)).collect()
    }

    /// How many elements each has, by its name.
    pub(super) fn counts(&self) -> HashMap<String, usize> {
        self.list.iter().map(|p| (p.name.clone(), p.value.dims()[0])).collect()
    }

    /// Every value by its name, for [`Parameters::restore`].
    pub fn values(&self) -> HashMap<String, Vec<f32>> {
        self.list.iter().map(|p| (p.name.clone(), p.to_host())).collect()
    }

    /// What the file keeps of every value, by its name: for a quantised weight its levels.
    pub fn stored(&self) -> HashMap<String, Vec<f32>> {
        let stored = |p: &Parameter| match &p.levels {
            Some(levels) => levels.nearest(&p.to_host()),
            None => p.to_host(),
        };
        self.list.iter().map(|p| (p.name.clone(), stored(p))).collect()
    }

    /// Takes over values by their names; what is not named stays.
    ///
    /// # Panics
    /// When a count differs: the values were [`Parameters::values`] of the same graph.
    pub fn restore(&mut self, values: &HashMap<String, Vec<f32>>) {
        for parameter in &mut self.list {
            if let Some(values) = values.get(&parameter.name) {
                let device = parameter.value.device();
                let data = TensorData::new(values.clone(), [values.len()]);
                parameter.set(Flat::from_data(data, &device));
            }
        }
    }

    /// Plain values for a pass without gradients.
    pub fn fixed(&self) -> Vec<Flat<1>> {
        self.list.iter().map(Parameter::value).collect()
    }

    /// Leaves of a new autodiff graph: one for each parameter, with a gradient where it trains.
    pub fn leaves(&self) -> Vec<Flat<1>> {
        self.list
            .iter()
            .map(|p| {
                if p.role.trains() {
                    p.value.clone().autodiff().require_grad()
                } else {
                    p.value.clone()
                }
            })
            .collect()
    }

    /// Lets running statistics follow what a training pass observed.
    pub fn observe(&mut self, observations: Vec<Observation>) {
        for seen in observations {
            let parameter = &mut self.list[seen.parameter];
            let old = parameter.value.clone().mul_scalar(seen.momentum);
            parameter.value = old + seen.value.inner().mul_scalar(1.0 - seen.momentum);
        }
    }
}

/// A flat tensor's elements on the host.
pub(crate) fn host(tensor: Flat<1>) -> Vec<f32> {
    let values = tensor.into_data().try_into_vec_as::<f32>();
    values.unwrap_or_else(|e| unreachable!("float tensors convert to f32: {e}"))
}
