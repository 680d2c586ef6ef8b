//! What a model's output means: scores, or probabilities already. Decided here for device, trainer
//! and hub alike.
//!
//! The output is the first one that holds floats; labels and maps before it are passed over. What the
//! graph says of it is [`Reading`], which `trace` finds. What is unclear there is settled by what the
//! model gave ([`Reading::settle`]): values below 0 or over 1 are no probabilities, rows that add up to
//! one are a softmax. A sigmoid cannot be told that way: then a person has to say.

use serde::{Deserialize, Serialize};

use super::check::shown;

/// How far a row of a softmax may be from a sum of one. Quantised ones are off by some levels.
const SUM_OFF: f32 = 0.02;
/// The same where nothing but the values says that it is one.
const SUM_EXACT: f32 = 1e-3;
/// How far a probability may be outside 0 to 1.
pub(crate) const SHARE_OFF: f32 = 1e-3;

/// What a classifier's output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// Scores: their softmax is the probability of each label.
    Logits,
    /// The probability of each label; together they are one.
    Softmax,
    /// The probability of each label on its own: yes or no.
    Sigmoid,
}

impl std::fmt::Display for OutputKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Logits => "logits",
            Self::Softmax => "softmax",
            Self::Sigmoid => "sigmoid",
        })
    }
}

impl std::str::FromStr for OutputKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Logits, Self::Softmax, Self::Sigmoid]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| format!("'{text}' is none of logits, softmax, sigmoid"))
    }
}

/// What the graph says of its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The output's name.
    pub output: String,
    /// What it is, as far as the graph says.
    pub meaning: Meaning,
}

/// What an output is, as far as a graph says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Scores.
    Logits,
    /// Probabilities.
    Probabilities {
        /// Of which kind.
        kind: OutputKind,
        /// The value that the softmax or sigmoid was taken of.
        scores: String,
        /// Whether the output has an element for each of these scores, in their order: nothing between
        /// averages or turns.
        direct: bool,
    },
    /// It comes out of an operator that may make either. Both as errors show them.
    Unclear {
        /// The operator.
        operator: String,
        /// What an error calls the node.
        node: String,
    },
}

impl Meaning {
    /// What it is, if the graph says.
    pub fn kind(&self) -> Option<OutputKind> {
        match self {
            Self::Logits => Some(OutputKind::Logits),
            Self::Probabilities { kind, .. } => Some(*kind),
            Self::Unclear { .. } => None,
        }
    }
}

/// Why it cannot be said what an output is, or not what somebody said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The graph says something else.
    #[error("its output {output} is {found} as the graph shows, not {said}; {}", .step)]
    Contradicted {
        /// The output.
        output: String,
        /// What the graph shows.
        found: OutputKind,
        /// What was said.
        said: OutputKind,
        /// What to do.
        step: &'static str,
    },
    /// Values say something else.
    #[error(
        "its output {output} is no {said}: {why}; give another --output, or cut the model at its scores \
         (onnx.utils.extract_model)"
    )]
    Values {
        /// The output.
        output: String,
        /// What was said or read.
        said: OutputKind,
        /// What was met.
        why: &'static str,
    },
    /// Nobody knows.
    #[error(
        "it is not clear whether its output {output} holds scores or probabilities: it comes out \
         of {operator} {node}; say it with --output logits, softmax or sigmoid"
    )]
    Unclear {
        /// The output.
        output: String,
        /// The operator it comes out of.
        operator: String,
        /// That node.
        node: String,
    },
}

impl Reading {
    /// What the output is by the graph, by what somebody said, and by the rows that the model gave, in
    /// this order of weight. No two may contradict each other.
    ///
    /// # Errors
    /// [`OutputError`] says who contradicts whom, or that nobody knows.
    pub fn settle(
        &self,
        said: Option<OutputKind>,
        rows: &[Vec<f32>],
    ) -> Result<OutputKind, OutputError> {
        let output = || shown(self.output.as_bytes());
        let agreed = match (self.meaning.kind(), said) {
            (Some(found), Some(said)) if found != said => {
                let step = "leave --output out";
                return Err(OutputError::Contradicted { output: output(), found, said, step });
            }
            (found, said) => found.or(said),
        };
        if let Some(kind) = agreed {
            return match kind.denied_by(rows) {
                None => Ok(kind),
                Some(why) => Err(OutputError::Values { output: output(), said: kind, why }),
            };
        }
        if rows.iter().flatten().any(|value| !is_share(*value)) {
            return Ok(OutputKind::Logits);
        }
        if !rows.is_empty() && rows.iter().all(|row| (sum(row) - 1.0).abs() <= SUM_EXACT) {
            return Ok(OutputKind::Softmax);
        }
        let Meaning::Unclear { operator, node } = self.meaning.clone() else {
            unreachable!("a meaning that is clear has a kind")
        };
        Err(OutputError::Unclear { output: output(), operator, node })
    }

    /// Whether a manifest may say `said` of this graph, whose golden cases gave `rows`.
    ///
    /// # Errors
    /// [`OutputError`]: graph or rows contradict it.
    pub fn admits(&self, said: OutputKind, rows: &[Vec<f32>]) -> Result<(), OutputError> {
        self.settle(Some(said), rows).map(drop).map_err(|error| match error {
            OutputError::Contradicted { output, found, said, .. } => {
                let step = "have 'trainer bundle' make the bundle again";
                OutputError::Contradicted { output, found, said, step }
            }
            other => other,
        })
    }
}

impl OutputKind {
    /// Why rows are not of this kind.
    fn denied_by(self, rows: &[Vec<f32>]) -> Option<&'static str> {
        if self == Self::Logits {
            return None;
        }
        if rows.iter().flatten().any(|value| !is_share(*value)) {
            return Some("a value is not between 0 and 1");
        }
        let whole = |row: &Vec<f32>| (sum(row) - 1.0).abs() <= SUM_OFF;
        (self == Self::Softmax && !rows.iter().all(whole))
            .then_some("the values of a sample do not add up to 1")
    }
}

fn is_share(value: f32) -> bool {
    (-SHARE_OFF..=1.0 + SHARE_OFF).contains(&value)
}

fn sum(row: &[f32]) -> f32 {
    row.iter().sum()
}
