//! ONNX Runtime, loaded at run time, and one session for each worker thread.
//!
//! A process has one [`Runtime`] and keeps it for life. A [`Session`] is owned by one thread:
//! running it takes `&mut`. Optimisation is left at the highest level; threads do not spin, for
//! spinning costs 1.9 times the CPU; the CPU provider is not registered by name, for that turns
//! its memory arena off. The runtime sees a [`Graph`], which was checked, or an [`Optimised`] one that
//! this device wrote of such a graph, and nothing else.

mod limit;
mod network;
mod runtime;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use limit::{Look, RunLimit};
pub use network::Network;
pub use runtime::{LIBRARY, LIBRARY_ENV, Runtime, keep_to_itself};

use runtime::NO_REPORTS;

use fleetloop_protocol::Digest;

use crate::bundle::{Bundle, Manifest};
use crate::graph::output::OutputKind;
use crate::graph::{Graph, GraphError};
use crate::picture::Frame;
use crate::postprocess::Classification;
use crate::preprocess::{Preprocess, PreprocessError};

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The library is not there or not usable.
    #[error(
        "cannot load ONNX Runtime (tried {}); get it with 'cargo xtask setup', or take \
         {LIBRARY} out of the PyPI wheel onnxruntime==1.31.1 and name it in {LIBRARY_ENV}",
        runtime::places(tried)
    )]
    Library {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
        /// What the last attempt met.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The library would report this process to its makers.
    #[error("ONNX Runtime would report to its makers; set {NO_REPORTS}=1")]
    Reports,
    /// The graph was refused before the runtime saw it.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The runtime refused the graph.
    #[error(
        "ONNX Runtime does not load model {model}; have onnx.checker.check_model look at the file, and \
         export it again"
    )]
    Load {
        /// Name and version.
        model: String,
        /// Why.
        #[source]
        source: ort::Error,
    },
    /// The runtime has no such operator, or not for these types.
    #[error(
        "ONNX Runtime has no operator {operator} for the types that model {model} gives it; export it \
         with float inputs and weights, and a newer operator set"
    )]
    Operator {
        /// Name and version.
        model: String,
        /// The operator, with its version.
        operator: String,
    },
    /// The graph is not the one the manifest describes.
    #[error("model {model} does not match its manifest: {reason}; rebuild the bundle")]
    Shape {
        /// Name and version.
        model: String,
        /// What differs.
        reason: String,
    },
    /// A frame cannot be brought to the input.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The runtime failed on an input.
    #[error("ONNX Runtime cannot run model {model} on one sample; export it with an open batch")]
    Run {
        /// Name and version.
        model: String,
        /// Why.
        #[source]
        source: ort::Error,
    },
    /// A run took too long and was ended, see [`RunLimit`].
    #[error(
        "model {model} gave no answer within {} s and was ended; use a model that needs less time",
        after.as_secs()
    )]
    Overdue {
        /// Name and version.
        model: String,
        /// How long it ran.
        after: Duration,
    },
    /// The number of input values is not that of a sample.
    #[error("cannot run the model on {len} values, want {want}")]
    Length {
        /// Values given.
        len: usize,
        /// Values needed.
        want: usize,
    },
}

/// A graph in ONNX Runtime's own format, which this device's own process wrote of a checked one: no
/// check of ours reads that format, so the bytes have to be the ones that were written.
#[derive(Clone, PartialEq, Eq)]
pub struct Optimised {
    file: Vec<u8>,
    start: usize,
}

impl std::fmt::Debug for Optimised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Optimised").field("bytes", &self.bytes().len()).finish()
    }
}

impl Optimised {
    /// The bytes of `file` from `start` on, if they are those of `written`: the digest of what
    /// [`Session::optimise`] wrote.
    pub fn of(file: Vec<u8>, start: usize, written: Digest) -> Option<Self> {
        let same = file.get(start..).is_some_and(|bytes| Digest::of(bytes) == written);
        same.then_some(Self { file, start })
    }

    /// What the runtime loads.
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.start..]
    }
}

/// How many threads one inference uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads(pub usize);

/// A model ready to answer, owned by one thread.
pub struct Session {
    network: Network,
    preprocess: Preprocess,
    input_dims: [usize; 3],
    classes: usize,
    output: OutputKind,
    input: Vec<f32>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("model", &self.network.name()).finish_non_exhaustive()
    }
}

impl SessionError {
    /// Of what the runtime said when it was to load a model.
    fn load(model: String, source: ort::Error) -> Self {
        const MISSING: &str = "Could not find an implementation for ";
        let said = source.to_string();
        match said.split_once(MISSING).and_then(|(_, rest)| rest.split_whitespace().next()) {
            Some(operator) => Self::Operator { model, operator: operator.to_owned() },
            None => Self::Load { model, source },
        }
    }
}

impl Session {
    /// Loads a bundle's model.
    ///
    /// # Errors
    /// [`SessionError`] when the graph cannot be loaded or is not the one the manifest describes.
    pub fn open(
        runtime: &Runtime,
        bundle: &Bundle,
        threads: Threads,
    ) -> Result<Self, SessionError> {
        Self::from_model(runtime, bundle.graph(), bundle.manifest(), threads)
    }

    /// Has the runtime optimise a bundle's graph for this machine and write it to `path` in its own
    /// format, which [`Session::open_optimised`] loads. What is written is for this
    /// runtime and this processor only, and neither atomic nor durable.
    ///
    /// # Errors
    /// [`SessionError::Load`] when the graph cannot be loaded or the file not be written.
    pub fn optimise(runtime: &Runtime, bundle: &Bundle, path: &Path) -> Result<(), SessionError> {
        let manifest = bundle.manifest();
        let model = name(manifest);
        Network::optimise(runtime, bundle.graph(), model, path)
    }

    /// Loads what [`Session::optimise`] wrote for this bundle.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_optimised(
        runtime: &Runtime,
        graph: &Optimised,
        bundle: &Bundle,
        threads: Threads,
    ) -> Result<Self, SessionError> {
        let manifest = bundle.manifest();
        let network = Network::open_optimised(runtime, graph, name(manifest), threads)?;
        Self::of(network, manifest)
    }

    /// Loads a graph that `manifest` describes, before there is a bundle of it.
    ///
    /// # Errors
    /// [`SessionError`] when the graph cannot be loaded or is not the one the manifest describes.
    pub fn from_model(
        runtime: &Runtime,
        graph: &Graph,
        manifest: &Manifest,
        threads: Threads,
    ) -> Result<Self, SessionError> {
        Self::of(Network::open(runtime, graph, name(manifest), threads)?, manifest)
    }

    fn of(network: Network, manifest: &Manifest) -> Result<Self, SessionError> {
        let dims = [manifest.input.channels, manifest.input.height, manifest.input.width];
        let session = Self {
            network,
            preprocess: Preprocess::new(manifest),
            input_dims: dims.map(|dim| dim as usize),
            classes: manifest.labels.len(),
            output: manifest.output,
            input: Vec::with_capacity(manifest.input_len()),
        };
        session.matches(manifest)?;
        Ok(session)
    }

    /// Has its runs looked at through `limit`.
    pub fn set_limit(&mut self, limit: RunLimit) {
        self.network.set_limit(limit);
    }

    /// What the graph gives for one frame, as it is: one value a label.
    ///
    /// # Errors
    /// [`SessionError`] when the frame cannot be resized or the runtime fails.
    pub fn outputs(&mut self, frame: &Frame) -> Result<Vec<f32>, SessionError> {
        let mut input = std::mem::take(&mut self.input);
        input.clear();
        let outputs = self
            .preprocess
            .apply(frame, &mut input)
            .map_err(SessionError::from)
            .and_then(|()| self.run(&input));
        self.input = input;
        outputs
    }

    /// The answer for one frame.
    ///
    /// # Errors
    /// As [`Session::outputs`].
    pub fn classify(&mut self, frame: &Frame) -> Result<Classification, SessionError> {
        Ok(Classification::of(self.output, &self.outputs(frame)?))
    }

    /// The answer for one preprocessed input.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn answer(&mut self, input: &[f32]) -> Result<Classification, SessionError> {
        Ok(Classification::of(self.output, &self.run(input)?))
    }

    /// What the graph gives for one preprocessed input, as it is: `channels × height × width` values
    /// in, one a label out.
    ///
    /// # Errors
    /// [`SessionError`] when the number of values is wrong or the runtime fails.
    pub fn run(&mut self, input: &[f32]) -> Result<Vec<f32>, SessionError> {
        let want = self.input_dims.iter().product();
        if input.len() != want {
            return Err(SessionError::Length { len: input.len(), want });
        }
        let (shape, values) = self.network.run(&self.input_dims, input)?;
        if values.len() != self.classes {
            let reason = format!("its output is {shape:?} a sample, want {} labels", self.classes);
            return Err(self.network.other_shape(reason));
        }
        Ok(values)
    }

    /// Checks name, rank and sizes of input and output; a size of −1 or a name stands for any. Behind
    /// the labels the output may have sizes of 1.
    fn matches(&self, manifest: &Manifest) -> Result<(), SessionError> {
        let shape = |reason: String| Err(self.network.other_shape(reason));
        let (input, output) = (self.network.input_outlet(), self.network.output_outlet());
        if input.name() != manifest.input.name {
            let (found, said) = (input.name(), &manifest.input.name);
            return shape(format!("its input is called {found:?}, the manifest says {said:?}"));
        }
        let want = self.input_dims.map(|dim| dim as i64);
        let fits = |found: &[i64], want: &[i64]| {
            let (sizes, rest) = found.split_at((want.len() + 1).min(found.len()));
            sizes.len() == want.len() + 1
                && sizes[1..].iter().zip(want).all(|(a, b)| *a < 0 || a == b)
                && rest.iter().all(|size| *size == 1 || *size < 0)
        };
        // A graph that does not say is asked when it runs.
        let found = input.dtype().tensor_shape().map(|shape| &**shape);
        if found.is_some_and(|found| !found.is_empty() && (found.len() != 4 || !fits(found, &want)))
        {
            let (found, want) = (sizes(found), sizes(Some(&want)));
            return shape(format!("its input is {found}, the manifest says batch×{want}"));
        }
        let found = output.dtype().tensor_shape().map(|shape| &**shape);
        if found.is_some_and(|found| !found.is_empty() && !fits(found, &[self.classes as i64])) {
            let found = sizes(found);
            return shape(format!(
                "its output {:?} is {found}, want batch×{} labels",
                output.name(),
                self.classes
            ));
        }
        Ok(())
    }
}

fn name(manifest: &Manifest) -> String {
    format!("{} {}", manifest.name, manifest.version)
}

/// A tensor's sizes as an error shows them.
fn sizes(of: Option<&[i64]>) -> String {
    let Some(of) = of else { return "no tensor".to_owned() };
    let words: Vec<_> =
        of.iter().map(|size| if *size < 0 { "any".to_owned() } else { size.to_string() }).collect();
    words.join("×")
}
