//! The device's word against the hub's disk: what was lost, and where a chain breaks. Pure.

use std::collections::{BTreeMap, BTreeSet};

use fleetloop_protocol::Digest;

use super::disk::HubDisk;
use super::ledger::{Id, Ledger};

/// What is wrong, in words; nothing when all is well. One line a kind, with the first of its cases.
pub fn faults(ledger: &Ledger, disk: &HubDisk) -> Vec<String> {
    let mut faults = Vec::new();
    let mut tell = |what: &str, ids: &[Id]| {
        if let Some(first) = ids.first() {
            faults.push(format!("{} {what}, the first of them {}", ids.len(), shown(first)));
        }
    };
    tell("acknowledged samples are lost", &missing(&ledger.stored, disk));
    tell("receipted samples are not stored", &missing(&ledger.receipted, disk));
    tell("samples are stored twice", &disk.twice);
    tell("identities were given to two samples", &ledger.reused);
    let epochs: BTreeSet<u64> = ledger.stored.keys().map(|(epoch, _)| *epoch).collect();
    if epochs.len() > 1 {
        faults.push(format!("the outbox began anew {} times", epochs.len() - 1));
    }
    if let Some(first) = disk.broken.first() {
        faults.push(format!("{} stored samples are broken: {first}", disk.broken.len()));
    }
    if disk.quarantined > 0 {
        faults.push(format!("{} messages contradict what is stored", disk.quarantined));
    }
    faults.extend(broken_chains(disk));
    faults
}

/// Which of these the hub does not have, digest and all.
pub fn missing(wanted: &BTreeMap<Id, Digest>, disk: &HubDisk) -> Vec<Id> {
    let has = |id: &Id, digest: &Digest| {
        disk.samples.get(id).is_some_and(|stored| stored.digest == *digest)
    };
    wanted.iter().filter(|(id, digest)| !has(id, digest)).map(|(id, _)| *id).collect()
}

/// A piece of a chain: a sample, or a declared gap.
struct Link {
    from: u64,
    to: u64,
    before: Digest,
    after: Digest,
}

/// Follows every epoch's chain from its first header to its last.
fn broken_chains(disk: &HubDisk) -> Vec<String> {
    let mut epochs: BTreeMap<u64, Vec<Link>> = BTreeMap::new();
    for ((epoch, sequence), stored) in &disk.samples {
        let (from, to) = (*sequence, *sequence);
        let link = Link { from, to, before: stored.previous, after: stored.digest };
        epochs.entry(*epoch).or_default().push(link);
    }
    for gap in &disk.gaps {
        let (from, to) = (gap.from.0, gap.to.0);
        let link = Link { from, to, before: gap.before, after: gap.after };
        epochs.entry(gap.epoch.0).or_default().push(link);
    }
    epochs.iter_mut().filter_map(|(epoch, links)| broken_at(*epoch, links)).collect()
}

fn broken_at(epoch: u64, links: &mut [Link]) -> Option<String> {
    links.sort_by_key(|link| link.from);
    let (mut next, mut head) = (0, Digest::ZERO);
    for link in links {
        if link.from > next {
            let last = link.from - 1;
            return Some(format!("epoch {epoch:016x} misses {next} to {last} undeclared"));
        }
        // A gap may declare what arrived all the same; what comes after must still fit.
        if link.to < next {
            continue;
        }
        if link.from == next && link.before != head {
            return Some(format!("epoch {epoch:016x} does not link at {next}"));
        }
        (next, head) = (link.to + 1, link.after);
    }
    None
}

fn shown((epoch, sequence): &Id) -> String {
    format!("{epoch:016x}/{sequence}")
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::gap::{Gap, GapReason};
    use fleetloop_protocol::{Epoch, Sequence};

    use super::super::disk::Stored;
    use super::*;

    fn digest(sequence: u64) -> Digest {
        Digest::of(&sequence.to_le_bytes())
    }

    fn before(sequence: u64) -> Digest {
        sequence.checked_sub(1).map_or(Digest::ZERO, digest)
    }

    /// Six samples, acknowledged and stored, but for the gap of 2 and 3.
    fn good() -> (Ledger, HubDisk) {
        let (mut ledger, mut disk) = (Ledger::default(), HubDisk::default());
        for sequence in [0, 1, 4, 5] {
            ledger.stored.insert((9, sequence), digest(sequence));
            ledger.receipted.insert((9, sequence), digest(sequence));
            let stored = Stored { digest: digest(sequence), previous: before(sequence) };
            disk.samples.insert((9, sequence), stored);
        }
        disk.gaps.push(Gap {
            device: "dev-1".parse().unwrap(),
            epoch: Epoch(9),
            from: Sequence(2),
            to: Sequence(3),
            before: before(2),
            after: digest(3),
            reason: GapReason::OutboxFull,
        });
        (ledger, disk)
    }

    #[test]
    fn a_whole_chain_with_a_declared_gap_has_no_fault() {
        let (ledger, disk) = good();
        assert_eq!(faults(&ledger, &disk), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_found() {
        type Spoil = fn(&mut Ledger, &mut HubDisk);
        let spoil: [(&str, Spoil); 9] = [
            ("acknowledged samples are lost", |l, _| {
                l.stored.insert((9, 6), digest(6));
            }),
            ("acknowledged samples are lost", |l, _| {
                l.stored.insert((9, 5), digest(0));
            }),
            ("receipted samples are not stored", |l, _| {
                l.receipted.insert((9, 6), digest(6));
            }),
            ("misses 2 to 3 undeclared", |_, d| d.gaps.clear()),
            ("does not link at 4", |_, d| d.gaps[0].after = digest(0)),
            ("does not link at 2", |_, d| d.gaps[0].before = digest(0)),
            ("stored twice", |_, d| d.twice.push((9, 1))),
            ("two samples", |l, _| l.reused.push((9, 1))),
            ("contradict", |_, d| d.quarantined = 1),
        ];
        for (words, spoil) in spoil {
            let (mut ledger, mut disk) = good();
            spoil(&mut ledger, &mut disk);
            let found = faults(&ledger, &disk);
            assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
        }
    }

    #[test]
    fn a_chain_that_does_not_begin_at_its_beginning_misses_something() {
        let (_, mut disk) = good();
        disk.samples.remove(&(9, 0));
        assert_eq!(broken_chains(&disk).len(), 1);
    }
}
