//! What the fleet ran before what it runs now. Pure.

use fleetloop_protocol::BundleDigest;

/// The bundle before the current one. `done` are the bundles of the rollouts that reached the fleet, the
/// oldest first, and whether each went back: that one undoes whatever came after its bundle.
pub fn before(done: &[(BundleDigest, bool)]) -> Option<BundleDigest> {
    let mut ran: Vec<BundleDigest> = Vec::new();
    for (bundle, back) in done {
        let earlier = ran.iter().rposition(|known| known == bundle);
        match earlier.filter(|_| *back) {
            Some(place) => ran.truncate(place + 1),
            None if ran.last() == Some(bundle) => {}
            None => ran.push(*bundle),
        }
    }
    ran.len().checked_sub(2).map(|place| ran[place])
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::Digest;

    use super::*;

    #[test]
    fn going_back_twice_goes_back_two_bundles_and_never_forth() {
        let [a, b, c] = ["a", "b", "c"].map(|name| BundleDigest(Digest::of(name.as_bytes())));
        let mut done = vec![(a, false), (b, false), (b, false), (c, false)];
        assert_eq!(before(&done), Some(b));
        done.push((b, true));
        assert_eq!(before(&done), Some(a));
        done.push((a, true));
        assert_eq!(before(&done), None);
        done.push((c, false));
        assert_eq!(before(&done), Some(a), "c again, on purpose this time");
        assert_eq!(before(&[]), None);
    }
}
