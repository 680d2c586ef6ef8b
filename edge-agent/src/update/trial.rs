//! Which model was at work when the agent ended without meaning to.
//!
//! The rule: a model is *on trial* from the moment before it is put to work until it has answered
//! for [`PROVEN_AFTER`], and again after every start. When the agent ends while a model is on trial,
//! other than by being asked to, and the machine did not restart, the end counts against that model:
//! a crash, a kill, the watchdog, memory. At [`ENDS_IN_A_ROW`] the model *loops*: it is not put to
//! work while there is another. The row is broken by coming through a trial, by an orderly end
//! during one, and by a new order for the model.
//!
//! What is not counted: an end by SIGTERM or SIGINT, however often; a restart of the machine, which
//! is told by the kernel's boot id, so a power cut in the first minute five times a day counts for
//! nothing; any end after the trial. Limits of the rule: a model that takes the whole machine down is
//! not caught; a model that needs longer than a trial to do harm is not either; three ends in a row
//! that others cause (`kill -9`, the memory of another process) are held against the model at work,
//! which goes back one model and no further.
//!
//! A model that does not come back from a run holds its thread for good. The agent writes its name to
//! `update/hung` and ends itself ([`end_process_of`]); the next start takes that for all ends in a row,
//! whether the model was on trial or not.
//!
//! Kept in `update/trial.{0,1}`, two generations of one document. What a power cut or a crash leaves:
//! 1. before [`Trial::begin`] has written: the model was not put to work and nothing is counted;
//! 2. from there to [`Trial::passed`] or [`Trial::ended`]: the model on trial, and under which boot;
//!    the next start counts if the boot is the same, in memory at first;
//! 3. [`Trial::begin`] of the next start writes what was counted together with the new trial, so no
//!    end is counted twice or forgotten, whatever the agent does in between.

use std::path::Path;
use std::time::Duration;

use fleetloop_protocol::BundleDigest;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::UpdateError;
use crate::chain::chain;
use crate::durable::{self, DurableError, Slots};
use crate::infer::Hung;

/// How long a model has to answer before an end is not its fault.
pub const PROVEN_AFTER: Duration = Duration::from_secs(5 * 60);

/// Ends in a row from which a model loops: two may be bad luck.
pub const ENDS_IN_A_ROW: u32 = 3;

/// Models whose ends are remembered: the two that are kept, the one that is ordered, and one more.
const REMEMBERED: usize = 4;

/// The largest document, in bytes.
const TRIAL_BYTES: u64 = 16 * 1024;

/// Names the boot instead of the kernel: for a rig that cuts the power of one process.
pub const BOOT_ENV: &str = "FLEETLOOP_BOOT_ID";

/// A model at work that has not proven itself since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnTrial {
    model: BundleDigest,
    /// Under which boot of the machine; none when that cannot be told, and then nothing is counted.
    boot: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    model: BundleDigest,
    in_a_row: u32,
    /// Whether it did not come back from a run: once is enough.
    hung: bool,
}

/// What is remembered of models. Pure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    on_trial: Option<OnTrial>,
    /// The latest last.
    ends: Vec<Ends>,
}

impl Record {
    /// The record as a start under `boot` finds it.
    pub fn found(mut self, boot: Option<&str>) -> Self {
        if let Some(OnTrial { model, boot: then }) = self.on_trial.take()
            && then.is_some()
            && then.as_deref() == boot
        {
            let before = self.ends(model);
            self.forget(model);
            self.remember(Ends { model, in_a_row: before.saturating_add(1), hung: false });
        }
        self
    }

    /// The record after `model` did not come back from a run.
    pub fn hung(mut self, model: BundleDigest) -> Self {
        self.on_trial = None;
        self.forget(model);
        self.remember(Ends { model, in_a_row: ENDS_IN_A_ROW, hung: true });
        self
    }

    fn remember(&mut self, ends: Ends) {
        self.ends.push(ends);
        let surplus = self.ends.len().saturating_sub(REMEMBERED);
        self.ends.drain(..surplus);
    }

    /// Ends in a row that count against a model.
    pub fn ends(&self, model: BundleDigest) -> u32 {
        self.ends.iter().find(|ends| ends.model == model).map_or(0, |ends| ends.in_a_row)
    }

    fn forget(&mut self, model: BundleDigest) {
        self.ends.retain(|ends| ends.model != model);
    }
}

/// The record, on the disk and of this run. A disk that refuses is logged: the model works on.
#[derive(Debug)]
pub struct Trial {
    slots: Slots,
    boot: Option<String>,
    record: Record,
    running: watch::Receiver<Option<BundleDigest>>,
    answers_since: Option<Instant>,
    /// [`PROVEN_AFTER`] but in tests.
    proven_after: Duration,
}

impl Trial {
    /// The trial under `data_dir`, of models that answer as `running` says.
    ///
    /// # Errors
    /// [`UpdateError`] when the folder cannot be used. A damaged record is no error: it is begun
    /// anew, and what was counted is lost.
    pub fn open(
        data_dir: &Path,
        boot: Option<String>,
        running: watch::Receiver<Option<BundleDigest>>,
    ) -> Result<Self, UpdateError> {
        let dir = data_dir.join("update");
        durable::create_dir(&dir)?;
        let slots = Slots::new(&dir, "trial", TRIAL_BYTES);
        let record = match slots.read() {
            Ok(Some((_, body))) => serde_json::from_slice(&body).unwrap_or_else(|error| {
                tracing::error!(%error, "the record of trials is unreadable and begun anew");
                Record::default()
            }),
            Ok(None) => Record::default(),
            Err(error @ DurableError::Damaged { .. }) => {
                tracing::error!(reason = chain(&error), "it is begun anew");
                slots.clear()?;
                Record::default()
            }
            Err(error) => return Err(error.into()),
        };
        let record = match take_hung(&dir) {
            Some(model) => {
                let record = record.hung(model);
                // Before the word is removed: a power cut between leaves both, which say the same.
                slots.write(&serde_json::to_vec(&record).unwrap_or_default())?;
                durable::remove(&dir.join(HUNG))?;
                record
            }
            None => record.found(boot.as_deref()),
        };
        Ok(Self { slots, boot, record, running, answers_since: None, proven_after: PROVEN_AFTER })
    }

    /// Why `model` is not put to work, if it loops.
    pub fn loops(&self, model: BundleDigest) -> Option<String> {
        if self.record.ends.iter().any(|ends| ends.model == model && ends.hung) {
            return Some(
                "it did not come back from a frame, and the agent was ended for it; see the device's                  log, then order it again or order another"
                    .to_owned(),
            );
        }
        let ends = self.record.ends(model);
        (ends >= ENDS_IN_A_ROW).then(|| {
            format!(
                "the agent ended {ends} times in a row within {} minutes of putting it to work; \
                 see the device's log, then order it anew or order another",
                PROVEN_AFTER.as_secs() / 60
            )
        })
    }

    /// `model` is about to be put to work. What was on trial before, to be given back if it is not.
    pub fn begin(&mut self, model: BundleDigest) -> Before {
        let on_trial = Some(OnTrial { model, boot: self.boot.clone() });
        let record = std::mem::replace(&mut self.record.on_trial, on_trial);
        let before = Before { record, answers_since: self.answers_since.take() };
        self.write();
        before
    }

    /// It was not put to work after all: the one before works on.
    pub fn refused(&mut self, before: Before) {
        self.record.on_trial = before.record;
        self.answers_since = before.answers_since;
        self.write();
    }

    /// Waits until the model on trial has answered for long enough; for ever if none is.
    ///
    /// Cancel-safe: since when it answers is kept.
    pub async fn over(&mut self) {
        let Some(OnTrial { model, .. }) = self.record.on_trial else {
            return std::future::pending().await;
        };
        if self.running.wait_for(|running| *running == Some(model)).await.is_err() {
            return std::future::pending().await;
        }
        let since = *self.answers_since.get_or_insert_with(Instant::now);
        tokio::time::sleep_until(since + self.proven_after).await;
    }

    /// The model on trial has proven itself.
    pub fn passed(&mut self) {
        self.end_trial();
    }

    /// The agent ends because it was asked to.
    pub fn ended(&mut self) {
        self.end_trial();
    }

    fn end_trial(&mut self) {
        if let Some(OnTrial { model, .. }) = self.record.on_trial.take() {
            self.record.forget(model);
            self.write();
        }
    }

    /// A new order names `model`: it is tried again.
    pub fn forgive(&mut self, model: BundleDigest) {
        if self.record.ends(model) > 0 {
            self.record.forget(model);
            self.write();
        }
    }

    fn write(&self) {
        // A struct of plain fields always serialises.
        let body = serde_json::to_vec(&self.record).unwrap_or_default();
        if let Err(error) = self.slots.write(&body) {
            tracing::warn!(reason = chain(&error), "which model is on trial cannot be kept");
        }
    }
}

/// Names the model that did not come back, until the next start has read it.
const HUNG: &str = "hung";

/// The exit status of an agent that a model holds up.
pub const HUNG_STATUS: i32 = 75;

/// Ends the process for a model that does not come back from a run: the next start goes back to the
/// model before. Nothing is drained, for a thread is held for good.
pub fn end_process_of(data_dir: &Path) -> Hung {
    let path = data_dir.join("update").join(HUNG);
    Box::new(move |model| {
        if let Err(error) = durable::write(&path, model.to_string().as_bytes()) {
            tracing::error!(reason = chain(&error), "which model holds the agent up is not kept");
        }
        tracing::error!(bundle = %model, "the agent ends; the next start goes back to the model before");
        // SAFETY: ends the process; no destructor runs, and the disk holds nothing by halves.
        #[expect(
            unsafe_code,
            reason = "exit() would run the runtime's destructors beside its held thread"
        )]
        unsafe {
            libc::_exit(HUNG_STATUS)
        }
    })
}

/// The model that the last run of the agent was ended for.
fn take_hung(dir: &Path) -> Option<BundleDigest> {
    let bytes = durable::read(&dir.join(HUNG), 256).ok()??;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok().map(BundleDigest)
}

/// What was on trial before another model was tried.
#[derive(Debug)]
pub struct Before {
    record: Option<OnTrial>,
    answers_since: Option<Instant>,
}

/// The machine's boot: the same for as long as it does not restart.
pub fn boot_id() -> Option<String> {
    let text = std::env::var(BOOT_ENV)
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/random/boot_id"));
    text.ok().map(|text| text.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::Digest;
    use proptest::prelude::*;

    use super::*;

    fn model(name: &str) -> BundleDigest {
        BundleDigest(Digest::of(name.as_bytes()))
    }

    struct Device {
        dir: tempfile::TempDir,
        running: watch::Sender<Option<BundleDigest>>,
    }

    impl Device {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap(), running: watch::Sender::new(None) }
        }

        fn start(&self, boot: &str) -> Trial {
            Trial::open(self.dir.path(), Some(boot.into()), self.running.subscribe()).unwrap()
        }

        /// A start that puts `name` to work and ends without meaning to.
        fn crash(&self, boot: &str, name: &str) {
            self.start(boot).begin(model(name));
        }
    }

    #[test]
    fn a_model_loops_after_three_ends_in_a_row_under_one_boot() {
        let device = Device::new();
        for ends in 0..3 {
            assert_eq!(device.start("b").loops(model("m")), None, "{ends}");
            device.crash("b", "m");
        }
        let reason = device.start("b").loops(model("m")).unwrap();
        assert!(reason.contains("3 times in a row"), "{reason}");
        assert_eq!(device.start("b").loops(model("other")), None);
    }

    #[test]
    fn power_cuts_in_the_first_minute_count_for_nothing_however_many() {
        let device = Device::new();
        for boot in 0..100 {
            device.crash(&boot.to_string(), "m");
        }
        assert_eq!(device.start("last").loops(model("m")), None);
    }

    #[test]
    fn where_the_boot_cannot_be_told_nothing_is_counted() {
        let device = Device::new();
        for _ in 0..5 {
            let running = device.running.subscribe();
            Trial::open(device.dir.path(), None, running).unwrap().begin(model("m"));
        }
        assert_eq!(device.start("b").loops(model("m")), None);
    }

    #[test]
    fn a_power_cut_between_crashes_neither_counts_nor_breaks_the_row() {
        let device = Device::new();
        for boot in ["a", "a", "b", "b", "b", "c"] {
            device.crash(boot, "m");
        }
        // The last of each boot is a power cut: 1 of a, 2 of b.
        assert!(device.start("d").loops(model("m")).is_some());
    }

    #[test]
    fn a_model_that_does_not_come_back_loops_at_once_even_after_its_trial() {
        let device = Device::new();
        device.start("b").passed();
        let word = device.dir.path().join("update").join(HUNG);
        durable::write(&word, model("m").to_string().as_bytes()).unwrap();
        for start in 0..2 {
            let trial = device.start("b");
            let reason = trial.loops(model("m")).unwrap();
            assert!(reason.contains("did not come back"), "start {start}: {reason}");
            assert!(!word.exists());
        }
        device.start("b").forgive(model("m"));
        assert_eq!(device.start("b").loops(model("m")), None);
    }

    #[test]
    fn an_orderly_end_and_a_new_order_break_the_row() {
        let device = Device::new();
        for _ in 0..2 {
            device.crash("b", "m");
        }
        let mut trial = device.start("b");
        trial.begin(model("m"));
        trial.ended();
        (0..3).for_each(|_| device.crash("b", "m"));
        let mut trial = device.start("b");
        assert!(trial.loops(model("m")).is_some());
        trial.forgive(model("m"));
        assert_eq!(device.start("b").loops(model("m")), None);
    }

    #[test]
    fn the_one_before_at_work_in_between_does_not_break_the_row() {
        let device = Device::new();
        for _ in 0..3 {
            let mut trial = device.start("b");
            trial.begin(model("old"));
            trial.begin(model("new"));
        }
        let trial = device.start("b");
        assert!(trial.loops(model("new")).is_some());
        assert_eq!(trial.loops(model("old")), None);
    }

    #[test]
    fn a_model_that_was_refused_is_not_on_trial() {
        let device = Device::new();
        for _ in 0..4 {
            let mut trial = device.start("b");
            let before = trial.begin(model("new"));
            trial.refused(before);
        }
        assert_eq!(device.start("b").loops(model("new")), None);
    }

    #[tokio::test]
    async fn a_model_that_answers_for_long_enough_has_proven_itself() {
        const MOMENT: Duration = Duration::from_millis(20);
        let device = Device::new();
        (0..2).for_each(|_| device.crash("b", "m"));
        let mut trial = device.start("b");
        trial.begin(model("m"));
        assert!(tokio::time::timeout(MOMENT, trial.over()).await.is_err());
        assert_eq!(trial.answers_since, None, "it has not answered yet");
        device.running.send_replace(Some(model("m")));
        assert!(tokio::time::timeout(MOMENT, trial.over()).await.is_err());
        let since = trial.answers_since;
        assert!(since.is_some());
        assert!(tokio::time::timeout(MOMENT, trial.over()).await.is_err());
        assert_eq!(trial.answers_since, since, "the time goes on, whatever came in between");
        trial.proven_after = Duration::ZERO;
        trial.over().await;
        trial.passed();
        drop(trial);
        (0..2).for_each(|_| device.crash("b", "m"));
        assert_eq!(device.start("b").loops(model("m")), None, "the row began anew");
    }

    #[test]
    fn a_damaged_record_is_begun_anew_and_never_stops_a_start() {
        let device = Device::new();
        (0..4).for_each(|_| device.crash("b", "m"));
        for slot in ["trial.0", "trial.1"] {
            durable::write(&device.dir.path().join("update").join(slot), b"damaged").unwrap();
        }
        assert_eq!(device.start("b").loops(model("m")), None);
        (0..3).for_each(|_| device.crash("b", "m"));
        assert!(device.start("b").loops(model("m")).is_some(), "and it counts again");
    }

    proptest! {
        #[test]
        fn no_start_counts_more_than_one_end_and_the_record_is_bounded(
            starts in prop::collection::vec((0u8..3, 0u8..8, any::<bool>()), 1..60),
        ) {
            let mut record = Record::default();
            for (boot, name, orderly) in starts {
                let boot = boot.to_string();
                let before: u32 = record.ends.iter().map(|ends| ends.in_a_row).sum();
                let expected = u32::from(
                    record.on_trial.as_ref().is_some_and(|o| o.boot.as_deref() == Some(&*boot)),
                );
                record = record.found(Some(&boot));
                let after: u32 = record.ends.iter().map(|ends| ends.in_a_row).sum();
                prop_assert!(after <= before + expected);
                prop_assert!(record.ends.len() <= REMEMBERED);
                if !orderly {
                    record.on_trial =
                        Some(OnTrial { model: model(&name.to_string()), boot: Some(boot) });
                }
                let json = serde_json::to_vec(&record).unwrap();
                prop_assert_eq!(serde_json::from_slice::<Record>(&json).unwrap(), record.clone());
            }
        }
    }
}
