//! One figure for each version of a model that may be compared: datasets grow, so the accuracy on its own
//! dataset may not. Counted are the items that every version was judged by. Pure.

use std::collections::BTreeMap;

use fleetloop_protocol::api::reports::{Counts, Output, Report};
use fleetloop_protocol::{BundleDigest, Digest};

/// What each bundle gets right of the items that reports of all of them hold, with the same label. A bundle
/// may have several reports: it gives the same answer in each.
pub fn comparable(reports: &[Report]) -> BTreeMap<BundleDigest, Counts> {
    let mut answers: BTreeMap<BundleDigest, BTreeMap<(Digest, u16), &Output>> = BTreeMap::new();
    for report in reports {
        let known = answers.entry(report.bundle).or_default();
        known.extend(report.outputs.iter().map(|output| ((output.sample, output.label), output)));
    }
    let shared = |item: &(Digest, u16)| answers.values().all(|known| known.contains_key(item));
    let count = |known: &BTreeMap<(Digest, u16), &Output>| {
        let all = known.iter().filter(|(item, _)| shared(item));
        all.fold(Counts::default(), |counts, (_, output)| Counts {
            good: counts.good + u64::from(output.is_correct()),
            of: counts.of + 1,
        })
    };
    answers.iter().map(|(bundle, known)| (*bundle, count(known))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::testing::{report, share};

    fn of(name: &str, import: &[bool], fleet: &[bool]) -> Report {
        Report { bundle: BundleDigest(Digest::of(name.as_bytes())), ..report(import, fleet) }
    }

    #[test]
    fn versions_are_compared_on_what_all_of_them_were_judged_by() {
        // The second dataset has harder items beside the first one's, and so has its base's report.
        let reports = [
            of("one", &share(100, 80), &[]),
            of("one", &share(100, 80), &share(40, 10)),
            of("two", &share(100, 85), &share(40, 30)),
            of("three", &share(100, 90), &share(60, 20)),
        ];
        let found = comparable(&reports);
        let counts = |name: &str| found[&BundleDigest(Digest::of(name.as_bytes()))];
        assert_eq!(counts("one"), Counts { good: 90, of: 140 });
        assert_eq!(counts("two"), Counts { good: 115, of: 140 });
        assert_eq!(counts("three"), Counts { good: 110, of: 140 });
        let apart = comparable(&[of("one", &share(9, 9), &[]), of("two", &[], &share(9, 9))]);
        assert!(apart.values().all(|counts| counts.of == 0), "they share nothing");
        let mut relabelled = of("two", &share(9, 9), &[]);
        relabelled.outputs[0].label = 1;
        let found = comparable(&[of("one", &share(9, 9), &[]), relabelled]);
        assert!(found.values().all(|counts| counts.of == 8), "the label was corrected");
    }
}
