//! What a new model begins with.

use fleetloop_models::bundle::{
    Bundle, Description, Fit, InputSpec, Manifest, OutputKind, PreprocessSpec,
};
use fleetloop_models::picture::Frame;
use fleetloop_models::preprocess::Preprocess;
use fleetloop_protocol::Digest;

use super::{JobError, Tools};
use crate::dataset::Pictures;
use crate::onnx::{Model, ModelFile};
use crate::pack::{self, declared_input};
use crate::record::BaseRecord;
use crate::starter::{Head, Kind, starter};

/// How many pictures are run to see what an output is.
const LOOKED_AT: usize = 16;

/// What a new model begins with.
#[derive(Debug)]
pub enum Base {
    /// A starter graph with random weights from the seed.
    Starter {
        /// Its kind.
        kind: Kind,
        /// Its input's shape, without the batch.
        input: Vec<usize>,
    },
    /// A bundle: its preprocessing and labels are kept.
    Bundle(Box<Bundle>),
    /// An ONNX file.
    Model {
        /// The file.
        file: ModelFile,
        /// How a picture is prepared for it; none for arrays, which are not.
        prepared: Option<Prepared>,
        /// What somebody says its output is.
        output: Option<OutputKind>,
    },
}

/// How a picture is prepared for an ONNX file, which does not say so itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// By mean and deviation that it was trained with: of values from 0 to 1, one a channel.
    Known(Vec<f32>, Vec<f32>),
    /// By those of the dataset: it has learned nothing yet.
    Measured,
}

/// A base ready to train.
#[derive(Debug)]
pub struct Start {
    /// Its file.
    pub model: Model,
    /// Its input.
    pub input: InputSpec,
    /// What happens to a picture before it.
    pub preprocess: PreprocessSpec,
    /// What its output is.
    pub output: OutputKind,
    /// How it is recorded.
    pub record: BaseRecord,
}

impl Base {
    /// Reads or makes the base and checks that it fits the labels.
    pub(super) fn start(
        &self,
        labels: &[String],
        pictures: &Pictures<'_>,
        seed: u64,
        tools: &Tools<'_>,
    ) -> Result<Start, JobError> {
        let (bytes, record) = self.file(Head::Classes(labels.len()), seed)?;
        if let Self::Bundle(bundle) = self {
            return from_bundle(bundle, record, labels);
        }
        let input = declared_input(&bytes)?;
        let (preprocess, said) = match self {
            Self::Model { prepared: None, .. } => return Err(JobError::Unprepared),
            Self::Model { prepared: Some(Prepared::Known(mean, std)), output, .. } => {
                let (mean, std) = (mean.clone(), std.clone());
                (PreprocessSpec { fit: Fit::Stretch, mean, std }, *output)
            }
            Self::Model { output, .. } => (statistics(&input, labels, pictures)?, *output),
            _ => (statistics(&input, labels, pictures)?, None),
        };
        let mut about = Description {
            name: "base".into(),
            version: 1,
            labels: labels.to_vec(),
            output: OutputKind::Logits,
            input,
            preprocess,
            lineage: None,
        };
        let frames: Vec<&Frame> = pictures.frames.iter().take(LOOKED_AT).collect();
        pack::settle(&mut about, &bytes, said, &frames, (tools.runtime, tools.threads))?;
        let Description { input, preprocess, output, .. } = about;
        Ok(Start { model: Model::parse(bytes)?, input, preprocess, output, record })
    }

    /// The file as it is, or a starter that ends in `head`; and how it is recorded.
    pub(super) fn file(&self, head: Head, seed: u64) -> Result<(Vec<u8>, BaseRecord), JobError> {
        let record = |model: &[u8], bundle, starter| {
            let model = Digest::of(model);
            BaseRecord { model, bundle, starter, sources: Vec::new() }
        };
        match self {
            Self::Bundle(bundle) => Ok((
                bundle.graph().bytes().to_vec(),
                record(bundle.graph().bytes(), Some(bundle.digest()), None),
            )),
            Self::Model { file, .. } => {
                let sources = file.sources.clone();
                let record = BaseRecord { sources, ..record(&file.bytes, None, None) };
                Ok((file.bytes.clone(), record))
            }
            Self::Starter { kind, input } => {
                let bytes = starter(*kind, input, head, seed)?;
                let shape: Vec<String> = input.iter().map(usize::to_string).collect();
                let made = record(&bytes, None, Some(format!("{kind} {}", shape.join("x"))));
                Ok((bytes, made))
            }
        }
    }
}

fn from_bundle(bundle: &Bundle, record: BaseRecord, labels: &[String]) -> Result<Start, JobError> {
    let manifest = bundle.manifest();
    if manifest.labels != labels {
        return Err(JobError::Mismatch(format!(
            "the base knows the labels {:?}, the dataset has {labels:?}; begin with a starter, or freeze a dataset of the base's labels",
            manifest.labels
        )));
    }
    Ok(Start {
        model: Model::parse(bundle.graph().bytes().to_vec())?,
        input: manifest.input.clone(),
        preprocess: manifest.preprocess.clone(),
        output: manifest.output,
        record,
    })
}

/// Mean and deviation of each channel over the pictures, to four decimals so that they read well.
fn statistics(
    input: &InputSpec,
    labels: &[String],
    pictures: &Pictures<'_>,
) -> Result<PreprocessSpec, JobError> {
    let channels = input.channels as usize;
    let plain =
        PreprocessSpec { fit: Fit::Stretch, mean: vec![0.0; channels], std: vec![1.0; channels] };
    let about = Description {
        name: "statistics".into(),
        version: 1,
        labels: labels.to_vec(),
        output: OutputKind::Logits,
        input: input.clone(),
        preprocess: plain,
        lineage: None,
    };
    let values = pictures.inputs(&mut Preprocess::new(&Manifest::draft(about)?))?;
    let plane = (input.height * input.width) as usize;
    let rounded = |v: f64| ((v * 1e4).round() / 1e4) as f32;
    let (mut mean, mut std) = (Vec::new(), Vec::new());
    for channel in 0..channels {
        let all = || {
            values
                .chunks_exact(plane)
                .skip(channel)
                .step_by(channels)
                .flatten()
                .map(|v| f64::from(*v))
        };
        let count = (values.len() / channels).max(1) as f64;
        let middle = all().sum::<f64>() / count;
        let variance = all().map(|v| (v - middle).powi(2)).sum::<f64>() / count;
        mean.push(rounded(middle));
        std.push(rounded(variance.sqrt()).max(1e-2));
    }
    Ok(PreprocessSpec { fit: Fit::Stretch, mean, std })
}
