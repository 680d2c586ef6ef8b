//! A graph in ONNX Runtime as it is: the floats of one sample in, floats out. What the numbers mean
//! is the caller's affair.
//!
//! A sample is always run alone, for training, judging and use: no answer may hang on the samples
//! beside it. A graph with a fixed batch gets that many copies of it. Floats of 16 and 64 bits are
//! turned into what the graph takes, and back. The output is the first that holds floats, as
//! [`crate::graph::output`] decides.

use std::path::Path;

use half::f16;
use ort::session::SessionInputValue;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, TensorRef};

use super::{Optimised, RunLimit, Runtime, SessionError, Threads};
use crate::graph::Graph;

/// Which format the runtime takes bytes for, instead of what they say of themselves.
const LOAD_FORMAT: &str = "session.load_model_format";

/// A graph ready to run, owned by one thread.
pub struct Network {
    inner: ort::session::Session,
    name: String,
    limit: RunLimit,
    /// The type of the input's elements.
    element: TensorElementType,
    /// How often the input holds the sample.
    copies: usize,
    /// Which output holds the floats.
    output: usize,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Network {
    /// Loads a graph; `name` stands in messages.
    ///
    /// # Errors
    /// [`SessionError::Load`] when the runtime refuses it.
    pub fn open(
        runtime: &Runtime,
        graph: &Graph,
        name: String,
        threads: Threads,
    ) -> Result<Self, SessionError> {
        let commit = || {
            builder(runtime, threads)?
                .with_config_entry(LOAD_FORMAT, "ONNX")?
                .commit_from_memory(graph.bytes())
        };
        Self::of(commit(), name)
    }

    /// Loads what [`Network::optimise`] wrote.
    pub(super) fn open_optimised(
        runtime: &Runtime,
        graph: &Optimised,
        name: String,
        threads: Threads,
    ) -> Result<Self, SessionError> {
        let commit = || {
            builder(runtime, threads)?
                .with_config_entry(LOAD_FORMAT, "ORT")?
                .commit_from_memory(graph.bytes())
        };
        Self::of(commit(), name)
    }

    fn of(
        committed: Result<ort::session::Session, ort::Error>,
        name: String,
    ) -> Result<Self, SessionError> {
        let load = |source| SessionError::load(name.clone(), source);
        let inner = committed.map_err(load)?;
        let limit = RunLimit::new().map_err(load)?;
        let shape = |reason: String| SessionError::Shape { model: name.clone(), reason };
        let [input] = inner.inputs() else {
            return Err(shape(format!("it has {} inputs", inner.inputs().len())));
        };
        let element = input.dtype().tensor_type().filter(is_float);
        let element = element.ok_or_else(|| shape("its input holds no floats".to_owned()))?;
        let fixed = input.dtype().tensor_shape().and_then(|shape| shape.first().copied());
        let copies = fixed.and_then(|size| usize::try_from(size).ok()).unwrap_or(1).max(1);
        let holds_floats =
            |outlet: &Outlet| outlet.dtype().tensor_type().is_some_and(|e| is_float(&e));
        let output = inner.outputs().iter().position(holds_floats);
        let output = output.ok_or_else(|| shape("no output holds floats".to_owned()))?;
        Ok(Self { inner, name, limit, element, copies, output })
    }

    /// Optimises a graph and writes it to `path`, in the runtime's own format.
    pub(super) fn optimise(
        runtime: &Runtime,
        graph: &Graph,
        name: String,
        path: &Path,
    ) -> Result<(), SessionError> {
        let write = || {
            builder(runtime, Threads(1))?
                .with_config_entry(LOAD_FORMAT, "ONNX")?
                .with_config_entry("session.save_model_format", "ORT")?
                .with_optimized_model_path(path)?
                .commit_from_memory(graph.bytes())
        };
        write().map(drop).map_err(|source| SessionError::load(name, source))
    }

    /// Runs it on one sample of `shape`, without the batch; shape and values of its output for that
    /// sample.
    ///
    /// # Errors
    /// [`SessionError`] when the runtime fails, or the output is not one row a sample.
    pub fn run(
        &mut self,
        shape: &[usize],
        sample: &[f32],
    ) -> Result<(Vec<usize>, Vec<f32>), SessionError> {
        let failed = |source| SessionError::Run { model: self.name.clone(), source };
        let shape = [&[self.copies], shape].concat();
        let input = self.input(&shape, sample).map_err(failed)?;
        let began = self.limit.begin();
        let outputs = self.inner.run_with_options(ort::inputs![input], self.limit.options());
        if let Some(after) = self.limit.end(began) {
            return Err(SessionError::Overdue { model: self.name.clone(), after });
        }
        let outputs = outputs.map_err(failed)?;
        let (mut shape, mut values) = floats(&outputs[self.output]).map_err(failed)?;
        drop(outputs);
        if self.copies > 1 && shape.first() != Some(&self.copies) {
            let reason = format!("its output is {shape:?} for a batch of {}", self.copies);
            return Err(self.other_shape(reason));
        }
        values.truncate(values.len() / self.copies);
        if shape.first().is_some_and(|first| *first == self.copies) {
            shape.remove(0);
        }
        Ok((shape, values))
    }

    /// The sample as often as the graph takes it, in the graph's type; as it is where it can be.
    fn input<'a>(
        &self,
        shape: &[usize],
        sample: &'a [f32],
    ) -> Result<SessionInputValue<'a>, ort::Error> {
        let all = || sample.iter().copied().cycle().take(sample.len() * self.copies);
        Ok(match self.element {
            TensorElementType::Float16 => {
                let values: Vec<f16> = all().map(f16::from_f32).collect();
                Tensor::from_array((shape.to_vec(), values))?.into()
            }
            TensorElementType::Float64 => {
                let values: Vec<f64> = all().map(f64::from).collect();
                Tensor::from_array((shape.to_vec(), values))?.into()
            }
            _ if self.copies == 1 => TensorRef::from_array_view((shape.to_vec(), sample))?.into(),
            _ => Tensor::from_array((shape.to_vec(), all().collect::<Vec<f32>>()))?.into(),
        })
    }

    /// Has its runs looked at through `limit`.
    pub fn set_limit(&mut self, limit: RunLimit) {
        self.limit = limit;
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The one input.
    pub(super) fn input_outlet(&self) -> &Outlet {
        &self.inner.inputs()[0]
    }

    /// The output that holds the floats.
    pub(super) fn output_outlet(&self) -> &Outlet {
        &self.inner.outputs()[self.output]
    }

    pub(super) fn other_shape(&self, reason: String) -> SessionError {
        SessionError::Shape { model: self.name.clone(), reason }
    }
}

fn builder(runtime: &Runtime, threads: Threads) -> Result<SessionBuilder, ort::Error> {
    Ok(ort::session::Session::builder(&runtime.environment)?
        .with_intra_threads(threads.0.max(1))?
        .with_intra_op_spinning(false)?)
}

fn is_float(element: &TensorElementType) -> bool {
    use TensorElementType::{Float16, Float32, Float64};
    matches!(element, Float16 | Float32 | Float64)
}

/// Shape and values of floats of any width.
fn floats(value: &DynValue) -> Result<(Vec<usize>, Vec<f32>), ort::Error> {
    let sizes = |shape: &[i64]| shape.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
    Ok(match value.dtype().tensor_type() {
        Some(TensorElementType::Float16) => {
            let (shape, values) = value.try_extract_tensor::<f16>()?;
            (sizes(shape), values.iter().map(|v| v.to_f32()).collect())
        }
        Some(TensorElementType::Float64) => {
            let (shape, values) = value.try_extract_tensor::<f64>()?;
            (sizes(shape), values.iter().map(|v| *v as f32).collect())
        }
        _ => {
            let (shape, values) = value.try_extract_tensor::<f32>()?;
            (sizes(shape), values.to_vec())
        }
    })
}
