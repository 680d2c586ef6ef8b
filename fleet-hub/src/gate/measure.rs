//! What is judged: by each metric, on which items of a group an answer is good.
//!
//! The one place of the gate that knows what a task's answers are. A metric says of one answer whether it
//! is good; everything behind it is counts. Another task adds its metrics here.

use std::collections::{BTreeMap, BTreeSet};

use fleetloop_protocol::api::datasets::kind_of;
use fleetloop_protocol::api::reports::{Counts, Output, Report};

use super::covers::output_key;
use super::statistics::Pairs;

/// The metric of a classifier: the most probable class is the label.
pub(super) const ACCURACY: &str = "accuracy";

/// Which items are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All.
    Whole,
    /// Those of a kind: what devices sent, or what was imported.
    Kind(String),
    /// Those of one source, where the kind has several.
    Source(String),
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measured {
    pub metric: &'static str,
    pub part: Part,
    pub counts: Counts,
    /// With the base's answers to the same items; none without a base.
    pub pairs: Option<Pairs>,
}

/// Counts by kind, by source where there are several, and over all.
pub(super) fn measure(candidate: &Report, base: Option<&Report>) -> Vec<Measured> {
    let groups: BTreeSet<&str> = candidate.outputs.iter().map(|o| o.group.as_str()).collect();
    let kinds: BTreeSet<&str> = groups.iter().map(|group| kind_of(group)).collect();
    let sources = |kind: &str| groups.iter().filter(|group| kind_of(group) == kind).count();
    let mut parts: Vec<Part> = kinds.iter().map(|kind| Part::Kind((*kind).to_owned())).collect();
    let split = groups.iter().filter(|group| sources(kind_of(group)) > 1);
    parts.extend(split.map(|group| Part::Source((*group).to_owned())));
    parts.push(Part::Whole);
    let known: Option<BTreeMap<_, &Output>> =
        base.map(|base| base.outputs.iter().map(|o| (output_key(o), o)).collect());
    let metric = (ACCURACY, Output::is_correct as fn(&Output) -> bool);
    parts.into_iter().map(|part| count(metric, part, candidate, known.as_ref())).collect()
}

fn count(
    (metric, is_good): (&'static str, fn(&Output) -> bool),
    part: Part,
    candidate: &Report,
    base: Option<&BTreeMap<(fleetloop_protocol::Digest, u16, &str), &Output>>,
) -> Measured {
    let (mut counts, mut pairs) = (Counts::default(), Pairs::default());
    for output in candidate.outputs.iter().filter(|output| part.holds(&output.group)) {
        let good = is_good(output);
        counts.of += 1;
        counts.good += u64::from(good);
        let Some(theirs) = base.and_then(|base| base.get(&output_key(output))) else { continue };
        *match (good, is_good(theirs)) {
            (true, true) => &mut pairs.both,
            (true, false) => &mut pairs.won,
            (false, true) => &mut pairs.lost,
            (false, false) => &mut pairs.neither,
        } += 1;
    }
    Measured { metric, part, counts, pairs: base.map(|_| pairs) }
}

impl Part {
    fn holds(&self, group: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::Kind(kind) => kind_of(group) == kind,
            Self::Source(source) => group == source,
        }
    }

    /// The group that it is; none for all.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Whole => None,
            Self::Kind(group) | Self::Source(group) => Some(group),
        }
    }
}

/// The share of the most frequent class: what always answering it would score.
pub(super) fn largest_class(report: &Report) -> Counts {
    let mut classes: BTreeMap<u16, u64> = BTreeMap::new();
    for output in &report.outputs {
        *classes.entry(output.label).or_default() += 1;
    }
    let good = classes.into_values().max().unwrap_or(0);
    Counts { good, of: report.outputs.len() as u64 }
}
