//! The kinds of findings: a stable word, a severity and one sentence each.
//!
//! A new kind is one line in [`kinds!`] and one in the table of `docs/operations.md`, which a test
//! compares with this list. The word never changes once it is released: alarms and metrics name it.

use fleetloop_protocol::api::findings::Severity;

macro_rules! kinds {
    ($($name:ident $word:literal $severity:ident $meaning:literal;)*) => {
        /// What was found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = $meaning] $name,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable word.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// How much it matters.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What it means and what to do next.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

kinds! {
    ChainPrevious "chain.previous" Warning "A sample names another predecessor than the one that is stored, so samples of this device were lost, changed or made twice; compare the device's outbox with the hub.";
    ChainJump "chain.jump" Warning "The sequence numbers of a device jumped further than a device can count, so its samples may be forged; look at the device.";
    ChainGapOverStored "chain.gap-over-stored" Notice "A device declared a sample lost that this hub has stored, as happens when a receipt is lost and the outbox runs full; if it happens often, look at the device's disk.";
    TimeFuture "time.future" Warning "A device dates a sample in the future; set the device's clock, or the hub's.";
    TimePast "time.past" Warning "A device says that its clock is right and dates a sample before this product existed; set the device's clock.";
    ModelUnknown "model.unknown" Warning "A device answers with a model that this hub does not hold; find out who installed it, or import it with 'fleet-hub model import' if it is yours.";
    ClassUnknown "class.unknown" Warning "A device predicts a class that its model does not have, so its answers are damaged or forged; look at the device.";
    TelemetryImpossible "telemetry.impossible" Warning "A device reports more frames than it can have answered, or counts that contradict each other; its telemetry does not count until it is plausible again.";
    ReportContradiction "report.contradiction" Alarm "A worker's report on a model contradicts the stored one, so one of them is wrong or forged, and nothing is judged by either; decide with 'fleet-hub report list' which one counts.";
    QuotaDrop "quota.drop" Warning "A device sends more than its quota, so its messages are held up or left out until it sends less; find out why it sends so much.";
    Clone "clone" Alarm "Two machines sign as one device, and samples of both are kept out of datasets; find the second machine and stop it, decide with 'fleet-hub device keep' which samples count, and enrol the copy as a device of its own.";
    EpochNew "epoch.new" Notice "A device began a new epoch: it was restored from an image, or its outbox was lost or damaged, and its samples count; if nobody did that, look at the device.";
    HubOlder "hub.older" Alarm "A device has seen newer metadata or receipts than this hub has, so the hub was restored from a backup; see docs/operations.md.";
    Overflow "finding.overflow" Warning "A device has as many findings as the hub keeps, so more were only counted; acknowledge what you have seen to.";
}

impl Kind {
    /// The kind of that word, if there is one.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_word(kind.word()), Some(*kind));
            assert!(kind.meaning().contains("; ") && kind.meaning().ends_with('.'), "{kind:?}");
        }
    }

    #[test]
    fn the_manual_lists_every_kind_with_its_severity_and_meaning() {
        let manual = include_str!("../../../../docs/operations.md");
        let line = |kind: &Kind| {
            format!("| `{}` | {} | {} |", kind.word(), kind.severity().as_str(), kind.meaning())
        };
        let missing: Vec<String> =
            Kind::ALL.iter().map(line).filter(|line| !manual.contains(line)).collect();
        assert!(missing.is_empty(), "docs/operations.md should hold:\n{}", missing.join("\n"));
    }
}
