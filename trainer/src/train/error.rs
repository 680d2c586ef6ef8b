//! Why a run stopped early.

use thiserror::Error;

use super::checkpoint::CheckpointError;
use super::{DataError, Loss};
use crate::graph::GraphError;

/// Why a run stopped early.
#[derive(Debug, Error)]
pub enum TrainError {
    /// Loss, targets and the graph's output do not fit together.
    #[error(
        "cannot train with the loss {loss}: {why} (the data's targets are {targets}, the graph gives {output})"
    )]
    Objective {
        /// The recipe's loss.
        loss: Loss,
        /// What the data holds.
        targets: String,
        /// What the graph gives.
        output: String,
        /// What does not fit, and what to do.
        why: String,
    },
    /// The data cannot be trained on with this recipe.
    #[error("cannot train on this data")]
    Data(#[from] DataError),
    /// The graph cannot be planned for a batch of this run.
    #[error("cannot train in batches of {batch}")]
    Plan {
        /// Samples in the batch.
        batch: usize,
        /// What does not fit.
        #[source]
        source: GraphError,
    },
    /// The inputs have another shape than the graph's.
    #[error(
        "cannot train: the samples have shape {samples:?}, the graph wants {graph:?}; choose a dataset or a model that fits"
    )]
    Input {
        /// Shape of a sample.
        samples: Vec<usize>,
        /// Shape the graph wants.
        graph: Vec<usize>,
    },
    /// The recipe's `freeze` does not suit the graph.
    #[error("cannot freeze {freeze}: {why}")]
    Freeze {
        /// What the recipe wants.
        freeze: String,
        /// Why not, and what to do.
        why: String,
    },
    /// A checkpoint that is there cannot be gone on from.
    #[error("cannot go on from a checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// No parameter trains.
    #[error(
        "cannot train: the graph has no weights that train; export the model with its weights as initializers"
    )]
    NothingTrains,
    /// The loss became infinite or not a number.
    #[error(
        "training stopped: the loss is no finite number in epoch {epoch}, batch {batch} (samples {samples:?}); lower learning_rate, or look at these samples"
    )]
    NotFinite {
        /// The epoch, from 1.
        epoch: u32,
        /// The batch in it, from 1.
        batch: usize,
        /// The samples of the batch, by their place in the data.
        samples: Vec<usize>,
    },
    /// Weights or the validation loss became infinite or not a number.
    #[error(
        "training stopped: after epoch {epoch} {what} is no finite number; lower learning_rate"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: u32,
        /// What is no number.
        what: String,
    },
    /// Someone asked it to stop.
    #[error("training cancelled in epoch {0}")]
    Cancelled(u32),
}

impl TrainError {
    /// The same of samples that stand elsewhere: `places` has the place of each.
    #[must_use]
    pub fn in_file(self, places: &[usize]) -> Self {
        match self {
            Self::NotFinite { epoch, batch, samples } => {
                let samples = samples.into_iter().map(|sample| places[sample]).collect();
                Self::NotFinite { epoch, batch, samples }
            }
            other => other,
        }
    }

    /// Whether the numbers went out of bounds; the graph then holds the last good weights.
    pub fn is_divergence(&self) -> bool {
        matches!(self, Self::NotFinite { .. } | Self::Diverged { .. })
    }
}
