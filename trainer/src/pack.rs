//! From a graph to a bundle: golden cases are recorded with the very file that ships.

use fleetloop_models::bundle::{Bundle, Description, InputSpec, Manifest};
use fleetloop_models::golden::GoldenCases;
use fleetloop_models::session::{Runtime, Session, Threads};
use fleetloop_protocol::sample::MediaType;

use crate::job::JobError;
use crate::onnx::Element;
use crate::onnx::Model;
use crate::onnx::read::DeclaredDim;

/// The largest difference of a logit that a device may have. Runtimes on other processors add up in
/// another order; differences seen are below a tenth of this.
const GOLDEN_TOLERANCE: f32 = 1e-3;

/// Makes a bundle of `model`, with what it makes of `payloads` as its golden cases.
///
/// # Errors
/// [`JobError`] when ONNX Runtime does not take the graph, the description does not fit it, or a
/// payload is no picture.
pub fn pack(
    about: Description,
    model: Vec<u8>,
    payloads: &[(MediaType, Vec<u8>)],
    runtime: &Runtime,
    threads: usize,
) -> Result<Bundle, JobError> {
    // The golden cases need a session, the session a manifest: this one is never written.
    let draft = Manifest::new(about.clone(), &model, b"")?;
    let mut session = Session::from_model(runtime, &model, &draft, Threads(threads))?;
    let golden = GoldenCases::record(&mut session, payloads, GOLDEN_TOLERANCE)?.to_json()?;
    let manifest = Manifest::new(about, &model, &golden)?.to_toml()?.into_bytes();
    Ok(Bundle::from_parts(manifest, model, golden)?)
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
        Some(&[channels @ (1 | 3), height, width]) if input.element() == Ok(Element::F32) => {
            Ok(InputSpec { name: input.name.clone(), channels, height, width })
        }
        _ => Err(mismatch()),
    }
}
