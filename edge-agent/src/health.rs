//! Whether the agent does its work: `GET /healthz`. Pure.
//!
//! Healthy is: a model answers frames, the threads that must live do, and the disk takes samples.
//! Not asked: the hub, the clock, an update that failed. A device may be offline for months, and
//! one whose new model was refused answers with the old one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::status::{RunningStatus, State, Status, TryingStatus};

/// How long no frame may be answered, at least; a slow source gets three of its periods.
const SILENCE: Duration = Duration::from_secs(60);

/// Seconds that a trial may take to end after its limit of time.
const TRIAL_ENDS_S: u64 = 30;

/// The answer of `GET /healthz`: 200 when there is no reason, 503 otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it does its work.
    pub healthy: bool,
    /// Why not, in words.
    pub reasons: Vec<String>,
    /// What is going on besides, in words; no reason to restart it.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Health {
    /// The health that `status` shows.
    pub fn of(status: &Status) -> Self {
        let reasons = status.running.as_ref().map_or_else(
            || vec!["the agent does not run; start it".to_owned()],
            |running| reasons(status, running),
        );
        let trying = status.running.as_ref().and_then(|running| running.trying);
        let note = |trying: TryingStatus| {
            let TryingStatus { bundle, for_s, at_most_s } = trying;
            let bundle = bundle.0.short();
            format!("model {bundle} has been tried for {for_s} s, of {at_most_s} s at most")
        };
        let shared = status.running.as_ref().and_then(|running| running.link.notice());
        let notes = trying.map(note).into_iter().chain(shared.map(str::to_owned)).collect();
        Self { healthy: reasons.is_empty(), reasons, notes }
    }
}

/// How long a source with this period may go without an answered frame.
pub fn silence_limit(period: Duration) -> Duration {
    SILENCE.max(3 * period)
}

fn reasons(status: &Status, running: &RunningStatus) -> Vec<String> {
    let mut reasons: Vec<String> = running
        .threads_ended
        .iter()
        .map(|name| format!("the {name} thread has ended; restart the agent"))
        .collect();
    if let Some(overdue_s) = running.overdue_s {
        reasons.push(format!(
            "the model has been over its limit for a frame (inference.run_limit_s) for {overdue_s} s; \
             it is ended, and the agent with it if it does not come back"
        ));
    }
    if let Some(trying) =
        running.trying.filter(|trying| trying.for_s > trying.at_most_s + TRIAL_ENDS_S)
    {
        let for_s = trying.for_s;
        reasons.push(format!("the trial of a model does not end ({for_s} s); restart the agent"));
    }
    if status.state == State::NoModelYet {
        reasons.push("no model answers yet; roll one out at the hub".to_owned());
    } else if running.silent_s > running.silence_limit_s {
        let silent_s = running.silent_s;
        reasons.push(format!("no frame was answered for {silent_s} s; check [source] and the log"));
    }
    if status.outbox.is_some_and(|outbox| outbox.paused) {
        reasons.push("the disk refuses samples; make room".to_owned());
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::testing::answering;

    #[test]
    fn offline_unsynced_and_a_failed_update_are_healthy() {
        let mut status = answering();
        let running = status.running.as_mut().unwrap();
        running.link.connected = false;
        running.link.last_error = Some("no route to the hub".into());
        running.clock = fleetloop_protocol::ClockState::Unsynced;
        assert_eq!(
            Health::of(&status),
            Health { healthy: true, reasons: Vec::new(), notes: Vec::new() }
        );
        status.running.as_mut().unwrap().link.identity_shared = true;
        let shared = Health::of(&status);
        assert!(shared.healthy && shared.notes[0].contains("USES THIS IDENTITY"), "{shared:?}");
    }

    #[test]
    fn each_thing_that_keeps_it_from_its_work_is_a_reason_of_its_own() {
        type Breaks = fn(&mut Status);
        let broken: [(&str, Breaks); 7] = [
            ("over its limit for a frame", |status| {
                status.running.as_mut().unwrap().overdue_s = Some(2);
            }),
            ("does not end", |status| {
                status.running.as_mut().unwrap().trying = Some(tried_for(700));
            }),
            ("no model answers", |status| status.state = State::NoModelYet),
            ("for 61 s", |status| status.running.as_mut().unwrap().silent_s = 61),
            ("the disk refuses", |status| status.outbox.as_mut().unwrap().paused = true),
            ("inference thread", |status| {
                status.running.as_mut().unwrap().threads_ended = vec!["inference".into()];
            }),
            ("does not run", |status| status.running = None),
        ];
        for (reason, breaks) in broken {
            let mut status = answering();
            breaks(&mut status);
            let health = Health::of(&status);
            assert!(!health.healthy && health.reasons.len() == 1, "{health:?}");
            assert!(health.reasons[0].contains(reason), "{health:?}");
        }
    }

    fn tried_for(for_s: u64) -> TryingStatus {
        let bundle = fleetloop_protocol::BundleDigest(fleetloop_protocol::Digest::ZERO);
        TryingStatus { bundle, for_s, at_most_s: 600 }
    }

    #[test]
    fn a_model_that_is_being_tried_is_told_and_no_fault() {
        let mut status = answering();
        status.running.as_mut().unwrap().trying = Some(tried_for(12));
        let health = Health::of(&status);
        assert!(health.healthy && health.notes[0].contains("12 s, of 600 s"), "{health:?}");
    }

    #[test]
    fn a_slow_source_has_three_of_its_periods() {
        assert_eq!(silence_limit(Duration::from_millis(100)), Duration::from_secs(60));
        assert_eq!(silence_limit(Duration::from_secs(100)), Duration::from_secs(300));
    }
}
