//! What the agent says of itself, for people and as JSON; from its files when it is not running.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetloop_protocol::api::status::OtlpStatus;
use fleetloop_protocol::state::Update;
use fleetloop_protocol::{BundleDigest, ClockState, DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::config::Place;
use crate::drift::DriftStatus;
use crate::health::Health;
use crate::identity::{Identity, IdentityError};
use crate::link::LinkStatus;
use crate::outbox::{self, OutboxStats};
use crate::reload::Standing;
use crate::telemetry::Counters;
use crate::update::bundle_state;

/// How long a running agent may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// What state the agent is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has no identity.
    NotEnrolled,
    /// It runs, and no model has answered yet.
    NoModelYet,
    /// It runs, and a model answers.
    Answering,
    /// It does not run.
    Stopped,
}

/// The model at work, or the one that would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// Its bundle's digest.
    pub digest: BundleDigest,
    /// Its name and version; none when only files were looked at.
    pub name: Option<String>,
}

/// The frames since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameStatus {
    /// Arrived.
    pub frames_in: u64,
    /// Answered.
    pub frames_answered: u64,
    /// Dropped because the queue was full, the source failed or the process stood still.
    pub frames_dropped: u64,
    /// Taken by a model that gave no answer.
    pub frames_failed: u64,
    /// Waiting now.
    pub frames_waiting: u64,
    /// Delivered more than a period late; they count as arrived as well.
    pub frames_late: u64,
}

/// What only a running agent knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningStatus {
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The time it believes in.
    pub now: UnixMillis,
    /// Whether it can be relied on.
    pub clock: ClockState,
    /// The configuration, and where frames come from.
    pub config: Standing,
    /// The frames.
    pub frames: FrameStatus,
    /// Why frames worth sending were not sent, and more.
    pub counters: Counters,
    /// Results that did not go to MQTT.
    pub results_dropped: u64,
    /// The connection to the hub.
    pub link: LinkStatus,
    /// Whether input and answers are what they were; none before the first window.
    pub drift: Option<DriftStatus>,
    /// Memory the process holds resident now, in bytes.
    pub rss_bytes: u64,
    /// The most memory the process ever held resident, in bytes.
    pub peak_rss_bytes: u64,
    /// Space left on the data folder's disk, in bytes; none when the system does not say.
    pub disk_free_bytes: Option<u64>,
    /// Seconds since a frame was last answered, or since start.
    pub silent_s: u64,
    /// From how many of them on the agent is not healthy.
    pub silence_limit_s: u64,
    /// The model that is being tried in a child process; none when none is.
    pub trying: Option<TryingStatus>,
    /// Seconds for which the model has been over its limit of time for a frame; none when it is not.
    pub overdue_s: Option<u64>,
    /// Threads that have ended and should not have.
    pub threads_ended: Vec<String>,
    /// Spans to the OTLP collector; none when none was asked for.
    pub otlp: Option<OtlpStatus>,
}

/// A model that is being tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TryingStatus {
    /// Which.
    pub bundle: BundleDigest,
    /// For how many seconds.
    pub for_s: u64,
    /// Seconds from which on it is refused (`proof.wall_s`).
    pub at_most_s: u64,
}

/// The agent's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// In one word.
    pub state: State,
    /// The agent's version.
    pub agent_version: String,
    /// Its data folder.
    pub data_dir: PathBuf,
    /// Who it is; none before enrolment.
    pub device: Option<DeviceId>,
    /// The model.
    pub model: Option<ModelStatus>,
    /// What waits for the hub; none when the file cannot be read now.
    pub outbox: Option<OutboxStats>,
    /// What only a running agent knows.
    pub running: Option<RunningStatus>,
    /// What could not be read, in words.
    pub problems: Vec<String>,
}

/// Asks the agent that listens at `listen`; none when nobody does.
pub async fn ask(listen: SocketAddr) -> Option<Status> {
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).no_proxy().build().ok()?;
    let response = client.get(format!("http://{listen}/status")).send().await.ok()?;
    response.error_for_status().ok()?.json().await.ok()
}

/// The status of the agent at `place`: its own word if it runs, which says what it thinks of its
/// configuration, or its files.
pub async fn status(place: &Place) -> Status {
    let Place { data_dir, listen, problems } = place;
    let same = |found: &Status| {
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        canonical(&found.data_dir) == canonical(data_dir)
    };
    let other = match ask(*listen).await {
        Some(found) if same(&found) => return found,
        other => other,
    };
    let mut status = from_files(data_dir);
    let theirs = other.map(|other| other.data_dir);
    let foreign = theirs.map(|dir| format!("{listen} is another agent's, with {}", dir.display()));
    let wrong = problems.as_ref().map(|problems| format!("cannot start: {problems}"));
    status.problems.extend(foreign.into_iter().chain(wrong));
    status
}

/// The status of an agent that does not run, from its files. Blocks on the disk.
pub fn from_files(data_dir: &Path) -> Status {
    let mut status = Status {
        state: State::Stopped,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        data_dir: data_dir.to_owned(),
        device: None,
        model: None,
        outbox: None,
        running: None,
        problems: Vec::new(),
    };
    match Identity::load(data_dir) {
        Ok(identity) => status.device = Some(identity.device().clone()),
        Err(IdentityError::NotEnrolled { .. }) => {
            status.state = State::NotEnrolled;
            return status;
        }
        Err(error) => status.problems.push(error.to_string()),
    }
    match bundle_state(data_dir) {
        Ok(installed) => {
            status.model = installed.current.map(|digest| ModelStatus { digest, name: None });
        }
        Err(error) => status.problems.push(error.to_string()),
    }
    if let Some(device) = &status.device {
        match outbox::read_stats(data_dir, device) {
            Ok(stats) => status.outbox = stats,
            Err(error) => status.problems.push(error.to_string()),
        }
    }
    status
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.describe(&mut text)?;
        f.write_str(text.trim_end())
    }
}

impl Status {
    fn describe(&self, out: &mut String) -> fmt::Result {
        let data_dir = self.data_dir.display();
        match (self.state, &self.model) {
            (State::NotEnrolled, _) => writeln!(
                out,
                "not enrolled: run 'edge-agent enroll --token TOKEN --data {data_dir}'"
            )?,
            (State::NoModelYet, _) => writeln!(out, "enrolled, no model yet (running)")?,
            (State::Answering, _) => writeln!(out, "running, a model answers")?,
            (State::Stopped, Some(_)) => writeln!(out, "stopped")?,
            (State::Stopped, None) => writeln!(out, "enrolled, no model yet (stopped)")?,
        }
        if let Some(device) = &self.device {
            writeln!(out, "device   {device}")?;
        }
        writeln!(out, "data     {data_dir}")?;
        if let Some(model) = &self.model {
            let name = model.name.as_deref().unwrap_or("");
            writeln!(out, "model    {} {name}", model.digest.0.short())?;
        }
        if let Some(running) = &self.running {
            running.describe(out)?;
        }
        if let Some(outbox) = &self.outbox {
            describe_outbox(outbox, out)?;
        }
        if self.running.is_some() {
            for reason in Health::of(self).reasons {
                writeln!(out, "unwell   {reason}")?;
            }
        }
        self.problems.iter().try_for_each(|problem| writeln!(out, "problem  {problem}"))
    }
}

impl RunningStatus {
    fn describe(&self, out: &mut String) -> fmt::Result {
        let (frames, link) = (&self.frames, &self.link);
        writeln!(
            out,
            "frames   {} in, {} answered, {} dropped, {} failed, {} waiting, {} late",
            frames.frames_in,
            frames.frames_answered,
            frames.frames_dropped,
            frames.frames_failed,
            frames.frames_waiting,
            frames.frames_late,
        )?;
        describe_config(&self.config, out)?;
        let hub = if link.connected { "connected" } else { "not connected" };
        let update = match &link.update {
            Update::Idle => String::new(),
            Update::Installing { bundle } => format!(", installing {}", bundle.0.short()),
            Update::Failed { bundle, reason } => {
                format!(", could not install {}: {reason}", bundle.0.short())
            }
        };
        let heard = match link.last_heard {
            Some(at) => format!(", heard {} s ago", self.now.0.saturating_sub(at.0) / 1000),
            None => ", not heard since start".to_owned(),
        };
        writeln!(out, "hub      {hub}{heard}, order {}{update}", link.generation)?;
        if let Some(notice) = link.notice() {
            writeln!(out, "         {notice}")?;
        }
        if let Some(error) = &link.last_error {
            writeln!(out, "         {error}")?;
        }
        if let Some(TryingStatus { bundle, for_s, at_most_s }) = self.trying {
            let bundle = bundle.0.short();
            writeln!(out, "trying   model {bundle} for {for_s} s, of {at_most_s} s at most")?;
        }
        if let Some(overdue_s) = self.overdue_s {
            writeln!(out, "model    over its limit for a frame for {overdue_s} s")?;
        }
        let clock = match self.clock {
            ClockState::Synced => "synced",
            ClockState::Unsynced => "not synced: nothing new is installed",
        };
        writeln!(out, "clock    {clock}")?;
        if let Some(drift) = &self.drift {
            writeln!(out, "drift    {drift}")?;
        }
        writeln!(out, "up       {} s", self.uptime_s)?;
        let (now, most) = (self.rss_bytes >> 20, self.peak_rss_bytes >> 20);
        writeln!(out, "memory   {now} MiB, {most} MiB at most")?;
        if let Some(free) = self.disk_free_bytes {
            writeln!(out, "disk     {} MiB free", free >> 20)?;
        }
        if let Some(otlp) = self.otlp {
            let OtlpStatus { exported, failed, dropped } = otlp;
            writeln!(out, "otlp     {exported} spans sent, {failed} failed, {dropped} dropped")?;
        }
        let counters = &self.counters;
        writeln!(
            out,
            "unsent   {} over budget, {} too busy, {} disk, {} too large; {} results unpublished",
            counters.not_selected_budget,
            counters.not_selected_busy,
            counters.not_selected_disk,
            counters.not_selected_size,
            self.results_dropped,
        )
    }
}

fn describe_config(config: &Standing, out: &mut String) -> fmt::Result {
    writeln!(out, "source   {}", config.source)?;
    writeln!(out, "config   {}", config.digest.short())?;
    if let Some(reason) = &config.refused {
        writeln!(out, "         the file as it is now is not used: {reason}")?;
    }
    if !config.at_next_start.is_empty() {
        writeln!(
            out,
            "         {}: takes effect at the next start",
            config.at_next_start.join(", ")
        )?;
    }
    Ok(())
}

fn describe_outbox(outbox: &OutboxStats, out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "outbox   {} samples ({} large) and {} gaps wait ({} KiB); {} signed, {} receipted, {} evicted, \
         {} refused, {} damaged",
        outbox.samples,
        outbox.uploads,
        outbox.gaps,
        outbox.bytes >> 10,
        outbox.samples_signed_total,
        outbox.samples_receipted_total,
        outbox.evicted_total,
        outbox.refused_total,
        outbox.damaged_total,
    )?;
    if outbox.epochs_opened_total > 0 {
        writeln!(
            out,
            "         {} new epochs, {} samples signed again: the hub had other samples under this \
             device's identities; it was restored from an image, or another device uses its identity",
            outbox.epochs_opened_total, outbox.signed_again_total,
        )?;
    }
    if outbox.paused {
        writeln!(out, "         the disk refuses: selection is paused; make room")?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    use fleetloop_protocol::drift::{Against, Drift, Feature, Finding, Verdict};

    use super::*;
    use crate::telemetry::peak_rss_bytes;

    /// An agent that does its work, with a number of its own in every field.
    pub(crate) fn answering() -> Status {
        let mut status = from_files(Path::new("/none"));
        status.state = State::Answering;
        status.device = Some("dev-1".parse().expect("an id"));
        let digest = BundleDigest(fleetloop_protocol::Digest::of(b"bundle"));
        status.model = Some(ModelStatus { digest, name: Some("wear 3".into()) });
        status.outbox = Some(OutboxStats {
            samples: 11,
            gaps: 12,
            uploads: 22,
            bytes: 13,
            dead_letters: 14,
            samples_signed_total: 15,
            samples_receipted_total: 16,
            evicted_total: 17,
            refused_total: 18,
            damaged_total: 19,
            dead_dropped_total: 20,
            append_failed: 21,
            signed_again_total: 23,
            epochs_opened_total: 24,
            ..OutboxStats::default()
        });
        status.running = Some(RunningStatus {
            uptime_s: 31,
            now: UnixMillis(1_800_000_090_000),
            clock: ClockState::Synced,
            config: Standing {
                digest: fleetloop_protocol::Digest::of(b"config"),
                source: "idx".into(),
                period_ms: 100,
                refused: Some("it is not TOML".into()),
                at_next_start: Vec::new(),
            },
            frames: FrameStatus {
                frames_in: 41,
                frames_answered: 42,
                frames_dropped: 43,
                frames_failed: 44,
                frames_waiting: 45,
                frames_late: 46,
            },
            counters: Counters {
                frames_answered: 42,
                frames_failed: 44,
                not_selected_budget: 51,
                not_selected_busy: 52,
                not_selected_disk: 53,
                not_selected_size: 54,
            },
            results_dropped: 61,
            link: LinkStatus {
                connected: true,
                last_error: None,
                update: Update::Idle,
                generation: 62,
                identity_shared: false,
                untrusted: 63,
                certificate_ends: UnixMillis(1_900_000_000_000),
                last_heard: Some(UnixMillis(1_800_000_000_000)),
            },
            drift: Some(DriftStatus {
                model: digest,
                against: Against::Bundle,
                drift: Drift {
                    verdict: Verdict::Drifted,
                    reference_frames: 70,
                    recent_frames: 71,
                    features: vec![Finding {
                        feature: Feature::Brightness,
                        verdict: Verdict::Drifted,
                        reference_frames: 70,
                        recent_frames: 71,
                        psi: None,
                        ks: None,
                        moved: None,
                    }],
                },
            }),
            rss_bytes: 71,
            peak_rss_bytes: peak_rss_bytes(),
            disk_free_bytes: Some(72),
            silent_s: 3,
            trying: None,
            overdue_s: None,
            silence_limit_s: 60,
            threads_ended: Vec::new(),
            otlp: Some(OtlpStatus { exported: 81, failed: 82, dropped: 83 }),
        });
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_an_identity_says_how_to_enrol() {
        let dir = tempfile::tempdir().unwrap();
        let status = from_files(dir.path());
        assert_eq!(status.state, State::NotEnrolled);
        assert!(status.to_string().contains("edge-agent enroll --token"), "{status}");
    }

    #[test]
    fn every_state_has_its_words_and_survives_json() {
        let mut status = from_files(Path::new("/none"));
        for (state, words) in [
            (State::NoModelYet, "enrolled, no model yet"),
            (State::Stopped, "enrolled, no model yet"),
            (State::Answering, "a model answers"),
        ] {
            status.state = state;
            assert!(status.to_string().contains(words), "{status}");
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
        }
    }

    #[test]
    fn a_running_agent_says_what_an_operator_asks_first() {
        let mut status = testing::answering();
        let text = status.to_string();
        for words in ["wear 3", "heard 90 s ago", "31 s", "0 MiB free", "81 spans sent"] {
            assert!(text.contains(words), "{words} is missing in {text}");
        }
        assert!(!text.contains("unwell"), "{text}");
        status.outbox.as_mut().unwrap().paused = true;
        assert!(status.to_string().contains("unwell   the disk refuses"), "{status}");
    }
}
