//! Whether a report is about exactly the items that a dataset keeps for the gate.

use std::collections::BTreeSet;

use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use fleetloop_protocol::api::reports::{Output, Report};

/// Why a report cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// Made on another dataset.
    #[error("cannot judge report: it was made on dataset {found}, the job's is {expected}")]
    Dataset {
        /// The report's.
        found: Digest,
        /// The one to judge on.
        expected: Digest,
    },
    /// Not the items that the dataset keeps for the gate.
    #[error(
        "cannot judge report: it has {found} outputs that fit, dataset {dataset} keeps {expected} \
         items for the gate; evaluate again on exactly these"
    )]
    Items {
        /// The dataset.
        dataset: Digest,
        /// Outputs whose sample, label and group are the dataset's.
        found: usize,
        /// Items to be judged on.
        expected: usize,
    },
    /// An output that is not one probability a label.
    #[error(
        "cannot judge report: the output for sample {sample} is not {labels} finite probabilities"
    )]
    Output {
        /// The item.
        sample: Digest,
        /// How many labels the dataset has.
        labels: usize,
    },
}

/// Holds a report against the dataset: exactly its gate items, each once, with the dataset's label
/// and group, in any order, and one finite probability a label.
///
/// # Errors
/// [`GateError`] naming the first thing that does not fit.
pub fn covers(report: &Report, digest: Digest, dataset: &Dataset) -> Result<(), GateError> {
    if report.dataset != digest {
        return Err(GateError::Dataset { found: report.dataset, expected: digest });
    }
    let items: BTreeSet<_> =
        dataset.items.iter().filter(|item| item.split == Split::Gate).map(item_key).collect();
    let found: BTreeSet<_> = report.outputs.iter().map(output_key).collect();
    let fitting = found.intersection(&items).count();
    if fitting != items.len() || report.outputs.len() != items.len() {
        return Err(GateError::Items { dataset: digest, found: fitting, expected: items.len() });
    }
    let labels = dataset.labels.len();
    let readable = |output: &&Output| {
        output.probabilities.len() == labels
            && output.probabilities.iter().all(|p| (0.0..=1.001).contains(p))
    };
    match report.outputs.iter().find(|output| !readable(output)) {
        Some(output) => Err(GateError::Output { sample: output.sample, labels }),
        None => Ok(()),
    }
}

fn item_key(item: &Item) -> (Digest, u16, &str) {
    (item.sample, item.label, &item.group)
}

pub(super) fn output_key(output: &Output) -> (Digest, u16, &str) {
    (output.sample, output.label, &output.group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::testing::{output, report, share};

    fn dataset(report: &Report) -> Dataset {
        let item = |o: &Output, split| Item {
            sample: o.sample,
            payload: o.sample,
            media_type: fleetloop_protocol::sample::MediaType::Png,
            label: o.label,
            split,
            group: o.group.clone(),
        };
        let mut items: Vec<_> = report.outputs.iter().map(|o| item(o, Split::Gate)).collect();
        items.push(item(&output(77_777, "fleet", true), Split::Train));
        Dataset { name: "d".to_owned(), labels: vec!["a".to_owned(), "b".to_owned()], items }
    }

    #[test]
    fn a_report_must_hold_the_datasets_gate_items_with_their_labels() {
        let good = report(&share(4, 2), &share(3, 1));
        let dataset = dataset(&good);
        let digest = good.dataset;
        assert_eq!(covers(&good, digest, &dataset), Ok(()));
        let mut short = good.clone();
        short.outputs.pop();
        assert!(matches!(covers(&short, digest, &dataset), Err(GateError::Items { .. })));
        let mut twice = good.clone();
        twice.outputs.push(good.outputs[0].clone());
        assert!(matches!(covers(&twice, digest, &dataset), Err(GateError::Items { .. })));
        let mut relabelled = good.clone();
        relabelled.outputs[0].label = 1;
        assert!(matches!(covers(&relabelled, digest, &dataset), Err(GateError::Items { .. })));
        let mut nan = good.clone();
        nan.outputs[0].probabilities[0] = f32::NAN;
        assert!(matches!(covers(&nan, digest, &dataset), Err(GateError::Output { .. })));
        let other = covers(&good, Digest::of(b"x"), &dataset);
        assert!(matches!(other, Err(GateError::Dataset { .. })));
    }
}
