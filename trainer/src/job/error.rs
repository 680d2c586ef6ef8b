//! Why a job was not done.

use fleetloop_models::bundle::BundleError;
use fleetloop_models::golden::GoldenError;
use fleetloop_models::graph::output::OutputError;
use fleetloop_models::reference::ReferenceError;
use fleetloop_models::session::SessionError;
use thiserror::Error;

use crate::arrays::ArraysError;
use crate::dataset::DatasetError;
use crate::evaluate::EvaluateError;
use crate::graph::GraphError;
use crate::onnx::OnnxError;
use crate::starter::StarterError;
use crate::train::{DataError, TrainError};

/// Why a job was not done. Each names its cause in its source.
#[derive(Debug, Error)]
pub enum JobError {
    /// The dataset cannot be used.
    #[error("cannot use the dataset")]
    Dataset(#[from] DatasetError),
    /// The arrays cannot be used.
    #[error("cannot use the arrays")]
    Arrays(#[from] ArraysError),
    /// What it holds cannot be trained on.
    #[error("cannot train on the dataset")]
    Data(#[from] DataError),
    /// The base's graph cannot be trained.
    #[error("cannot train the base model")]
    Graph(#[from] GraphError),
    /// The base's file cannot be read or patched.
    #[error("cannot use the base model's file")]
    Onnx(#[from] OnnxError),
    /// The starter cannot be made.
    #[error("cannot begin with a starter")]
    Starter(#[from] StarterError),
    /// Base and dataset do not fit.
    #[error("cannot train the base on the dataset: {0}")]
    Mismatch(String),
    /// The model's input and the arrays do not fit.
    #[error(
        "cannot run the model on the arrays: its input is {input}, a sample of array x has shape {sample:?}; reshape x or choose another model"
    )]
    Shape {
        /// The input as the file declares it, the batch first.
        input: String,
        /// The shape of a sample.
        sample: Vec<usize>,
    },
    /// The graph takes something else than one picture.
    #[error(
        "its input is {0}; want one of batch x channels x height x width floats, 1 or 3 channels, only the batch open; export it so"
    )]
    Input(String),
    /// It cannot be said what the output means.
    #[error("cannot use the model")]
    Output(#[from] OutputError),
    /// Nobody said how pictures are prepared for an ONNX file.
    #[error(
        "cannot train an ONNX file on pictures without knowing how they are prepared for it; give \
         --mean and --std as it was trained with, or --measure if it has learned nothing yet"
    )]
    Unprepared,
    /// A recipe for arrays changes pictures.
    #[error(
        "cannot train on arrays of shape {0:?} with [augment] in the recipe: it changes pictures alone, which are channels x height x width with 1 or 3 channels; leave it out, or reshape x"
    )]
    Augment(Vec<usize>),
    /// The recipe cannot be written down.
    #[error("cannot record the recipe: {0}")]
    Recipe(String),
    /// Training stopped.
    #[error("cannot train")]
    Train(#[from] TrainError),
    /// The numbers went out of bounds while training.
    #[error("cannot train")]
    Diverged {
        /// Where.
        #[source]
        source: TrainError,
        /// The base's file with the weights of the last whole epoch; none before the first.
        good: Option<Vec<u8>>,
    },
    /// A file cannot be evaluated.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// ONNX Runtime does not take the file.
    #[error("cannot run the model in ONNX Runtime")]
    Session(#[from] SessionError),
    /// The golden cases cannot be recorded.
    #[error("cannot record golden cases")]
    Golden(#[from] GoldenError),
    /// What the model makes of the pictures is no reference.
    #[error("cannot record the bundle's reference")]
    Reference(#[from] ReferenceError),
    /// The bundle cannot be made.
    #[error("cannot make the bundle")]
    Bundle(#[from] BundleError),
}

impl JobError {
    /// The same of samples that stand elsewhere: `places` has the place of each.
    #[must_use]
    pub fn in_file(self, places: &[usize]) -> Self {
        match self {
            Self::Train(error) => Self::Train(error.in_file(places)),
            Self::Diverged { source, good } => {
                Self::Diverged { source: source.in_file(places), good }
            }
            other => other,
        }
    }

    /// Whether doing the job again, here or elsewhere, would end the same way.
    pub fn is_permanent(&self) -> bool {
        !self.is_cancelled() && !matches!(self, Self::Train(TrainError::Checkpoint(_)))
    }

    /// Whether someone asked it to stop.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Train(TrainError::Cancelled(_)) | Self::Evaluate(EvaluateError::Cancelled)
        )
    }
}
