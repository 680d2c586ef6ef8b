//! What a new configuration changes in an agent that runs. Pure.
//!
//! Every key is either taken over while it runs or named as one that waits for the next start; a key
//! that is added to [`Config`] does not compile until it is decided here.

use std::time::Duration;

use crate::config::{
    Config, HttpConfig, InferenceConfig, OutboxConfig, SourceConfig, TelemetryConfig,
};
use crate::decide::Rules;

/// Something that an owner takes over between two frames.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// What is worth sending and publishing, and the digest that sample headers name.
    Rules(Rules),
    /// The outbox's limits.
    Outbox(OutboxConfig),
    /// The time between two telemetry reports.
    TelemetryEvery(Duration),
    /// Frames that may wait for the model.
    QueueFrames(usize),
    /// Frames a second from the same source, which goes on where it is.
    Rate(f64),
    /// Another source, at its own rate.
    Source(SourceConfig),
}

/// What follows from a new configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The new one, with the old values of what waits for the next start.
    pub in_force: Config,
    /// What changes now.
    pub changes: Vec<Change>,
    /// Keys whose new values take effect at the next start.
    pub at_next_start: Vec<String>,
}

/// What follows from `new` where `now` is in force.
pub fn plan(now: &Config, new: Config) -> Plan {
    let mut changes = Vec::new();
    let may_wait = new.queue_frames();
    if Rules::of(&new) != Rules::of(now) {
        changes.push(Change::Rules(Rules::of(&new)));
    }
    let Config {
        data_dir,
        source,
        selection,
        outbox,
        inference: InferenceConfig { threads, library, queue_frames, run_limit_s },
        proof,
        http: HttpConfig { listen },
        results,
        telemetry: TelemetryConfig { every_s, otlp },
        digest,
    } = new;
    let telemetry = TelemetryConfig { every_s, ..now.telemetry.clone() };
    if outbox != now.outbox {
        changes.push(Change::Outbox(outbox.clone()));
    }
    if telemetry != now.telemetry {
        changes.push(Change::TelemetryEvery(telemetry.every()));
    }
    if may_wait != now.queue_frames() {
        changes.push(Change::QueueFrames(may_wait));
    }
    if !source.same_frames(&now.source) {
        changes.push(Change::Source(source.clone()));
    } else if source != now.source {
        changes.push(Change::Rate(source.rate_hz()));
    }
    let waits = [
        ("data_dir", data_dir != now.data_dir),
        ("inference.threads", threads != now.inference.threads),
        ("inference.library", library != now.inference.library),
        ("inference.run_limit_s", run_limit_s != now.inference.run_limit_s),
        ("proof", proof != now.proof),
        ("http.listen", listen != now.http.listen),
        ("telemetry.otlp", otlp != now.telemetry.otlp),
    ];
    let at_next_start =
        waits.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect();
    let in_force = Config {
        data_dir: now.data_dir.clone(),
        source,
        selection,
        outbox,
        inference: InferenceConfig { queue_frames, ..now.inference.clone() },
        proof: now.proof,
        http: now.http.clone(),
        results,
        telemetry,
        digest,
    };
    Plan { in_force, changes, at_next_start }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const LEAST: &str = "data_dir = 'd'\n[source]\nkind = 'idx'\nimages = 'i'\nrate_hz = 1\n";

    fn config(more: &str) -> Config {
        Config::parse(&format!("{LEAST}{more}"), Path::new("/etc")).unwrap()
    }

    fn planned(more: &str) -> Plan {
        plan(&config(""), config(more))
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let plan = planned("");
        assert_eq!((plan.changes, plan.at_next_start), (vec![], vec![]));
        assert_eq!(plan.in_force, config(""));
    }

    #[test]
    fn whatever_changes_the_digest_that_headers_name_follows() {
        let plan = planned("# a remark\n");
        assert_eq!(plan.changes, [Change::Rules(Rules::of(&config("# a remark\n")))]);
        assert_ne!(plan.in_force.digest, config("").digest);
    }

    #[test]
    fn each_key_that_can_change_while_running_changes_its_owner_alone() {
        let limits = OutboxConfig { max_rows: 7, ..OutboxConfig::default() };
        for (more, change) in [
            ("[outbox]\nmax_rows = 7\n", Some(Change::Outbox(limits))),
            ("[telemetry]\nevery_s = 7\n", Some(Change::TelemetryEvery(Duration::from_secs(7)))),
            ("[inference]\nqueue_frames = 7\n", Some(Change::QueueFrames(7))),
            ("[selection]\nrandom_rate = 0.7\n", None),
            ("[results]\nmqtt_per_second = 7\n", None),
        ] {
            let plan = planned(more);
            let rules = Change::Rules(Rules::of(&config(more)));
            let expected: Vec<Change> = std::iter::once(rules).chain(change).collect();
            assert_eq!(plan.changes, expected, "{more}");
            assert_eq!(plan.in_force, config(more));
            assert!(plan.at_next_start.is_empty());
        }
    }

    #[test]
    fn another_rate_keeps_the_source_and_another_file_does_not() {
        let other = |from: &str, to: &str| {
            let text = LEAST.replace(from, to);
            let new = Config::parse(&text, Path::new("/etc")).unwrap();
            plan(&config(""), new).changes.pop().unwrap()
        };
        assert_eq!(other("rate_hz = 1", "rate_hz = 2"), Change::Rate(2.0));
        for (from, to) in [("'i'", "'j'"), ("rate_hz = 1", "rate_hz = 2\nstart = 1")] {
            assert!(matches!(other(from, to), Change::Source(_)), "{to}");
        }
    }

    #[test]
    fn more_frames_a_second_make_the_queue_longer_unless_the_file_says_how_long_it_is() {
        let at = |rate_hz: u32, more: &str| {
            let rate = format!("rate_hz = {rate_hz}");
            let text = format!("{}{more}", LEAST.replace("rate_hz = 1", &rate));
            Config::parse(&text, Path::new("/etc")).unwrap()
        };
        let changes = |more: &str| plan(&at(100, more), at(300, more)).changes;
        assert!(changes("").contains(&Change::QueueFrames(600)));
        let is_of_queue = |change: &Change| matches!(change, Change::QueueFrames(_));
        assert!(!changes("[inference]\nqueue_frames = 9\n").iter().any(is_of_queue));
    }

    #[test]
    fn what_cannot_change_is_named_stays_and_is_forgotten_when_it_goes_back() {
        let more = "[http]\nlisten = '127.0.0.1:1'\n[inference]\nthreads = 2\nlibrary = 'l'\n";
        let text = format!("{LEAST}{more}").replace("'d'", "'e'");
        let first = plan(&config(""), Config::parse(&text, Path::new("/etc")).unwrap());
        let keys = ["data_dir", "inference.threads", "inference.library", "http.listen"];
        assert_eq!(first.at_next_start, keys);
        let old = config("");
        assert_eq!(first.in_force.data_dir, old.data_dir);
        assert_eq!((&first.in_force.inference, &first.in_force.http), (&old.inference, &old.http));
        let back = plan(&first.in_force, config(""));
        assert!(back.at_next_start.is_empty());
        assert_eq!(back.in_force, config(""));
    }
}
