//! What a model makes of a dataset: the file that ships, in ONNX Runtime, with the code that
//! preprocesses on a device.

use std::collections::BTreeMap;

use fleetloop_models::postprocess::Classification;
use fleetloop_models::session::{Session, SessionError};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::Item;
use fleetloop_protocol::api::reports::Output;
use serde::Serialize;
use thiserror::Error;

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
        "cannot evaluate the model: its output for {samples} samples has shape {found:?}, the loss {loss} compares {wanted} values a sample; choose another model or loss (--loss, in a recipe when training), or look at y: integers are classes, other numbers are to be reached, and without y the input is"
    )]
    Output {
        /// Its shape.
        found: Vec<usize>,
        /// Samples given.
        samples: usize,
        /// Values wanted a sample.
        wanted: usize,
        /// The loss that wants them.
        loss: crate::train::Loss,
    },
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
}

/// The output for every item, in their order. `inputs` are preprocessed, one after another;
/// `batch` at a time are run.
///
/// # Errors
/// [`EvaluateError`]; `watch` returns false to cancel.
pub fn outputs(
    session: &mut Session,
    items: &[&Item],
    inputs: &[f32],
    batch: usize,
    mut watch: impl FnMut(usize, usize) -> bool,
) -> Result<Vec<Output>, EvaluateError> {
    let per_item = inputs.len() / items.len().max(1);
    let mut outputs = Vec::with_capacity(items.len());
    for (items_now, inputs_now) in items.chunks(batch).zip(inputs.chunks((batch * per_item).max(1)))
    {
        if !watch(outputs.len(), items.len()) {
            return Err(EvaluateError::Cancelled);
        }
        let logits = session.run(items_now.len(), inputs_now)?;
        for (item, row) in items_now.iter().zip(logits.chunks_exact(logits.len() / items_now.len()))
        {
            let answer = Classification::from_logits(row);
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
    Summary { overall, groups }
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
    }
}
