//! Which groups are held out to judge by, whole ones: a recording, a part, a day.
//!
//! Windows of one recording, or pictures of one part, are alike without being equal. Where some are
//! learned from and others judged by, the figure says how well a model knows the recording again, and
//! nothing about the next one (arXiv 2509.22267). So where samples have groups, whole groups are held out.
//!
//! The choice follows from the groups' names, sizes and classes alone, and repeats.

use std::collections::{BTreeMap, BTreeSet};

use fleetloop_protocol::Digest;

/// What a group holds: how many samples of each class; one class for what has none.
pub type Holdings = BTreeMap<usize, usize>;

/// The names of the groups that are held out: about `share` of all samples, at least one group. A group
/// is not taken when a class would be left with nothing to learn from, and not when it would bring the
/// part over one and a half times the share while a smaller one is there. None when no group can be
/// taken: there is one alone, or each class is in one alone.
pub fn whole_groups(groups: &BTreeMap<String, Holdings>, share: f64) -> Option<BTreeSet<String>> {
    let size = |holdings: &Holdings| holdings.values().sum::<usize>();
    let total: usize = groups.values().map(size).sum();
    let mut left: BTreeMap<usize, usize> = BTreeMap::new();
    for class in groups.values().flat_map(BTreeMap::keys) {
        *left.entry(*class).or_default() += 1;
    }
    let mut order: Vec<(&String, &Holdings)> = groups.iter().collect();
    order.sort_by_key(|(name, _)| Digest::of(name.as_bytes()));
    let wanted = total as f64 * share;
    let (mut held, mut count) = (BTreeSet::new(), 0);
    let spare = |holdings: &Holdings, left: &BTreeMap<usize, usize>| {
        holdings.keys().all(|class| left.get(class).is_some_and(|groups| *groups > 1))
    };
    for (name, holdings) in &order {
        let more = count + size(holdings);
        if count as f64 >= wanted {
            break;
        }
        if more as f64 > 1.5 * wanted || !spare(holdings, &left) {
            continue;
        }
        for class in holdings.keys() {
            *left.entry(*class).or_default() -= 1;
        }
        held.insert((*name).clone());
        count = more;
    }
    if held.is_empty() {
        let smallest = order
            .iter()
            .filter(|(_, holdings)| spare(holdings, &left))
            .min_by_key(|(_, holdings)| size(holdings))?;
        held.insert(smallest.0.clone());
    }
    Some(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(of: &[(&str, &[(usize, usize)])]) -> BTreeMap<String, Holdings> {
        let one = |(name, held): &(&str, &[(usize, usize)])| {
            ((*name).to_owned(), held.iter().copied().collect())
        };
        of.iter().map(one).collect()
    }

    #[test]
    fn about_the_share_is_held_out_in_whole_groups_and_repeats() {
        let names: Vec<String> = (0..20).map(|n| format!("recording {n}")).collect();
        let of: Vec<(&str, &[(usize, usize)])> =
            names.iter().map(|name| (name.as_str(), &[(0, 5), (1, 5)][..])).collect();
        let all = groups(&of);
        let held = whole_groups(&all, 0.2).unwrap();
        assert_eq!(held.len(), 4);
        assert_eq!(whole_groups(&all, 0.2), Some(held));
        assert_eq!(whole_groups(&all, 0.01).unwrap().len(), 1);
    }

    #[test]
    fn no_class_is_left_with_nothing_to_learn_from() {
        let all = groups(&[("a", &[(0, 9)]), ("b", &[(0, 9)]), ("c", &[(1, 9)])]);
        let held = whole_groups(&all, 0.9).unwrap();
        assert!(held.len() == 1 && !held.contains("c"), "{held:?}");
        assert_eq!(whole_groups(&groups(&[("a", &[(0, 9)]), ("c", &[(1, 9)])]), 0.5), None);
        assert_eq!(whole_groups(&groups(&[("a", &[(0, 9)])]), 0.5), None);
    }
}
