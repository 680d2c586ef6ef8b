//! The choices of a recipe that are no numbers: loss, optimiser, what is frozen, early stopping.

use serde::{Deserialize, Serialize};

/// What training makes small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Classes, one a sample: cross-entropy over the scores before a final softmax.
    #[default]
    CrossEntropy,
    /// Yes or no for each output: binary cross-entropy over the scores before a final sigmoid.
    Binary,
    /// Mean squared error.
    Mse,
    /// Mean absolute error.
    Mae,
    /// Squared near the target, linear beyond [`super::Recipe::huber_delta`] (Huber 1964).
    Huber,
    /// Mean squared error against the input itself.
    Reconstruction,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CrossEntropy => "cross-entropy",
            Self::Binary => "binary",
            Self::Mse => "mse",
            Self::Mae => "mae",
            Self::Huber => "huber",
            Self::Reconstruction => "reconstruction",
        })
    }
}

/// How gradients move the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// AdamW (Loshchilov and Hutter 2019).
    #[default]
    Adamw,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

/// Which parameters keep the base's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "want a list of names such as [\"backbone.*\"], { first = 3 }, or \"all-but-head\""
)]
pub enum Freeze {
    /// Those with these names; `*` stands for any characters, `?` for one. None when empty.
    Names(Vec<String>),
    /// Those of the first layers.
    Depth(Depth),
    /// All of a part of the graph.
    Part(Part),
}

/// The first layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depth {
    /// How many layers with weights, in the file's order.
    pub first: usize,
}

/// A part of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Everything before the last layers with weights.
    AllButHead,
}

impl Default for Freeze {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl std::fmt::Display for Freeze {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Names(patterns) => write!(f, "{patterns:?}"),
            Self::Depth(Depth { first }) => write!(f, "first = {first}"),
            Self::Part(Part::AllButHead) => f.write_str("all-but-head"),
        }
    }
}

/// Ends a run when a part of the data that is not learned from gets no better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStopping {
    /// Epochs without a better validation loss after which the run ends.
    pub patience: u32,
    /// By how much a loss has to be below the best one to be better.
    pub min_delta: f32,
    /// The share of the samples that is kept for validation.
    pub validation_share: f64,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        Self { patience: 5, min_delta: 0.0, validation_share: 0.1 }
    }
}
