//! A graph in ONNX Runtime as it is: floats of any shape in, floats out. What the numbers mean is
//! the caller's affair.

use std::path::Path;

use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, TensorRef};

use super::{Optimised, RunLimit, Runtime, SessionError, Threads};
use crate::graph::Graph;

/// Which format the runtime takes bytes for, instead of what they say of themselves.
const LOAD_FORMAT: &str = "session.load_model_format";

/// A graph ready to run, owned by one thread.
pub struct Network {
    inner: ort::session::Session,
    name: String,
    limit: RunLimit,
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
        match committed {
            Ok(inner) => match RunLimit::new() {
                Ok(limit) => Ok(Self { inner, name, limit }),
                Err(source) => Err(SessionError::Load { model: name, source }),
            },
            Err(source) => Err(SessionError::Load { model: name, source }),
        }
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
        write().map(drop).map_err(|source| SessionError::Load { model: name, source })
    }

    /// Runs it on one input of `shape` and returns shape and values of its first output.
    ///
    /// # Errors
    /// [`SessionError`] when it has no single float input, or the runtime fails.
    pub fn run(
        &mut self,
        shape: &[usize],
        input: &[f32],
    ) -> Result<(Vec<usize>, Vec<f32>), SessionError> {
        let failed = |source| SessionError::Run { model: self.name.clone(), source };
        let tensor = TensorRef::from_array_view((shape, input)).map_err(failed)?;
        let began = self.limit.begin();
        let outputs = self.inner.run_with_options(ort::inputs![tensor], self.limit.options());
        if let Some(after) = self.limit.end(began) {
            return Err(SessionError::Overdue { model: self.name.clone(), after });
        }
        let outputs = outputs.map_err(failed)?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        let shape = shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        Ok((shape, values.to_vec()))
    }

    /// Has its runs looked at through `limit`.
    pub fn set_limit(&mut self, limit: RunLimit) {
        self.limit = limit;
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn inputs(&self) -> &[Outlet] {
        self.inner.inputs()
    }

    pub(super) fn outputs(&self) -> &[Outlet] {
        self.inner.outputs()
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
