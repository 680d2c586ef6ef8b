//! From a graph to a bundle: golden cases and reference are recorded with the very file that ships.

use fleetloop_models::bundle::{Bundle, Description, Files, InputSpec, Manifest, OutputKind, Role};
use fleetloop_models::golden::GoldenCases;
use fleetloop_models::graph::Graph;
use fleetloop_models::picture::Frame;
use fleetloop_models::reference::Reference;
use fleetloop_models::session::{Runtime, Session, SessionError, Threads};
use fleetloop_protocol::sample::MediaType;

use crate::job::JobError;
use crate::job::limit::{self, Limited};
use crate::onnx::Element;
use crate::onnx::Model;
use crate::onnx::read::DeclaredDim;

/// The largest difference of a logit that a device may have. Runtimes on other processors add up in
/// another order; differences seen are below a tenth of this.
const GOLDEN_TOLERANCE: f32 = 1e-3;

/// A graph on its way into a bundle. It runs by a manifest that is never written.
pub struct Draft {
    about: Description,
    graph: Graph,
    manifest: Manifest,
    session: Session,
    _limited: Option<Limited>,
}

impl Draft {
    /// Opens `model` as `about` describes it.
    ///
    /// # Errors
    /// [`JobError`] when the description is none, the graph is refused, or ONNX Runtime does not take it
    /// so.
    pub fn open(
        about: Description,
        model: Vec<u8>,
        runtime: &Runtime,
        threads: usize,
    ) -> Result<Self, JobError> {
        let manifest = Manifest::draft(about.clone())?;
        let graph = Graph::check(model).map_err(SessionError::Graph)?;
        let mut session = Session::from_model(runtime, &graph, &manifest, Threads(threads))?;
        let limited = limit::limit_runs(&mut session);
        Ok(Self { about, graph, manifest, session, _limited: limited })
    }

    /// How pictures are preprocessed, and the session that runs the graph.
    pub fn parts(&mut self) -> (&Manifest, &mut Session) {
        (&self.manifest, &mut self.session)
    }

    /// The bundle, with what the graph makes of `golden` as its golden cases.
    ///
    /// # Errors
    /// [`JobError`] when a payload is no picture, or the reference is not of this model.
    pub fn finish(
        mut self,
        golden: &[(MediaType, Vec<u8>)],
        reference: Option<&Reference>,
    ) -> Result<Bundle, JobError> {
        let golden = GoldenCases::record(&mut self.session, golden, GOLDEN_TOLERANCE)?;
        let model = self.graph.into_bytes();
        let mut files = Files::from([(Role::Model, model), (Role::Golden, golden.to_json()?)]);
        if let Some(reference) = reference {
            files.insert(Role::Reference, reference.to_json()?);
        }
        let manifest = Manifest::new(self.about, &files)?.to_toml()?.into_bytes();
        Ok(Bundle::from_parts(manifest, files)?)
    }
}

/// Finds out what the output of `model` is and notes it in `about`: by its graph, by what somebody
/// says, and by what it gives for `frames`.
///
/// # Errors
/// [`JobError`] when the graph is refused or does not run, or it stays unclear.
pub fn settle(
    about: &mut Description,
    model: &[u8],
    said: Option<OutputKind>,
    frames: &[&Frame],
    (runtime, threads): (&Runtime, usize),
) -> Result<(), JobError> {
    // Rows are the graph's own, whatever the draft says of the output.
    let mut draft = Draft::open(about.clone(), model.to_vec(), runtime, threads)?;
    let (_, session) = draft.parts();
    let rows: Result<Vec<_>, _> = frames.iter().map(|frame| session.outputs(frame)).collect();
    about.output = draft.graph.reading().settle(said, &rows?)?;
    Ok(())
}

/// The picture input that a graph declares: batch × channels × height × width of floats, with 1 or
/// 3 channels and fixed sizes but for the batch.
///
/// # Errors
/// [`JobError`] when the file cannot be read or declares another input.
pub fn declared_input(model: &[u8]) -> Result<InputSpec, JobError> {
    let model = Model::parse(model.to_vec())?;
    let mismatch = || {
        let inputs: Vec<String> = model.inputs.iter().map(ToString::to_string).collect();
        JobError::Input(inputs.join(", "))
    };
    let [input] = model.inputs.as_slice() else { return Err(mismatch()) };
    let sizes: Option<Vec<u32>> = input.dims.as_deref().and_then(|dims| {
        let fixed = dims.get(1..)?.iter().map(|dim| match dim {
            DeclaredDim::Fixed(size) => u32::try_from(*size).ok(),
            DeclaredDim::Open(_) => None,
        });
        fixed.collect()
    });
    match sizes.as_deref() {
        Some(&[channels @ (1 | 3), height, width])
            if input.element().is_ok_and(Element::is_float) =>
        {
            Ok(InputSpec { name: input.name.clone(), channels, height, width })
        }
        _ => Err(mismatch()),
    }
}
