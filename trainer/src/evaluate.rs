//! What a model makes of a dataset: the file that ships, in ONNX Runtime, with the code that
//! preprocesses on a device.

use std::collections::BTreeMap;

use fleetloop_models::figures::Figures;
use fleetloop_models::graph::output::OutputError;
use fleetloop_models::session::{Session, SessionError};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::Item;
use fleetloop_protocol::api::reports::Output;
use serde::Serialize;
use thiserror::Error;

/// How many samples are run between two looks at whether to go on.
pub const WATCHED_EVERY: usize = 64;

/// Why a model cannot be evaluated.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// The runtime failed.
    #[error("cannot evaluate the model")]
    Session(#[from] SessionError),
    /// The model answered with something that is no number.
    #[error(
        "cannot evaluate the model: its output for sample {0} is no finite number; train it again with a lower learning_rate"
    )]
    NotFinite(Digest),
    /// The model answered with something that is no number.
    #[error(
        "cannot evaluate the model: its output for sample {0} is no finite number; train it again with a lower learning_rate"
    )]
    NotFiniteAt(usize),
    /// The output is not what the loss compares.
    #[error(
        "cannot evaluate the model: its output for a sample has shape {found:?}, the loss {loss} compares {wanted} values a sample; choose another model or loss (--loss, in a recipe when training), or look at y: integers are classes, other numbers are to be reached, and without y the input is"
    )]
    Output {
        /// Its shape.
        found: Vec<usize>,
        /// Values wanted a sample.
        wanted: usize,
        /// The loss that wants them.
        loss: crate::train::Loss,
    },
    /// It cannot be said what the output means.
    #[error("cannot evaluate the model")]
    Meaning(#[from] OutputError),
    /// Someone asked it to stop.
    #[error("evaluation cancelled")]
    Cancelled,
}

/// How many were right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// Samples that were right.
    pub correct: usize,
    /// Samples in all.
    pub total: usize,
    /// Their share; 0 when there are none.
    pub share: f64,
}

/// Accuracy over everything and by group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Over everything.
    pub overall: Accuracy,
    /// By group.
    pub groups: BTreeMap<String, Accuracy>,
    /// AUC, figures by class, the confusion matrix, and what no model at all would score.
    pub figures: Figures,
}

/// The output for every item, in their order. `inputs` are preprocessed, one after another; they are
/// run one by one, as on a device.
///
/// # Errors
/// [`EvaluateError`]; `watch` returns false to cancel.
pub fn outputs(
    session: &mut Session,
    items: &[&Item],
    inputs: &[f32],
    mut watch: impl FnMut(usize, usize) -> bool,
) -> Result<Vec<Output>, EvaluateError> {
    let per_item = (inputs.len() / items.len().max(1)).max(1);
    let mut outputs = Vec::with_capacity(items.len());
    for (item, input) in items.iter().zip(inputs.chunks_exact(per_item)) {
        if outputs.len().is_multiple_of(WATCHED_EVERY) && !watch(outputs.len(), items.len()) {
            return Err(EvaluateError::Cancelled);
        }
        let answer = session.answer(input)?;
        if !answer.is_finite() {
            return Err(EvaluateError::NotFinite(item.sample));
        }
        outputs.push(Output {
            sample: item.sample,
            label: item.label,
            group: item.group.clone(),
            probabilities: answer.probabilities().to_vec(),
        });
    }
    Ok(outputs)
}

/// Counts what was right.
pub fn summary(outputs: &[Output]) -> Summary {
    let mut groups: BTreeMap<String, Accuracy> = BTreeMap::new();
    let mut overall = Accuracy::default();
    for output in outputs {
        for counted in [&mut overall, groups.entry(output.group.clone()).or_default()] {
            counted.total += 1;
            counted.correct += usize::from(output.is_correct());
        }
    }
    for counted in groups.values_mut().chain([&mut overall]) {
        counted.share = counted.correct as f64 / counted.total.max(1) as f64;
    }
    let classes = outputs.first().map_or(0, |output| output.probabilities.len());
    let rows = outputs.iter().map(|o| (usize::from(o.label), o.probabilities.as_slice()));
    Summary { overall, groups, figures: Figures::of(classes, rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_add_up_to_the_whole() {
        let output = |label, group: &str, probabilities: [f32; 2]| Output {
            sample: Digest::ZERO,
            label,
            group: group.into(),
            probabilities: probabilities.to_vec(),
        };
        let summary = summary(&[
            output(0, "import", [0.9, 0.1]),
            output(1, "import", [0.9, 0.1]),
            output(1, "fleet", [0.2, 0.8]),
        ]);
        assert_eq!((summary.overall.correct, summary.overall.total), (2, 3));
        assert_eq!(summary.groups["fleet"].share, 1.0);
        assert_eq!(summary.groups["import"].share, 0.5);
        assert_eq!(summary.figures.confusion, [[1, 0], [1, 1]]);
        assert_eq!(summary.figures.largest_class, 2.0 / 3.0);
    }
}
