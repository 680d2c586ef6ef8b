//! `fleet-hub rollout …`

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::bail;
use fleetloop_observe::output::Output;
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::api::devices::Presence;
use fleetloop_protocol::api::rollouts::{
    Member, MemberState, Phase, Rollout, RolloutId, RolloutRequest, Wait,
};

use super::client::Client;
use super::progress::Progress;
use super::resolve;
use super::table::{Table, facts};
use super::{devices, human};
use crate::clock::Clock;

/// How often a rollout is looked at while waiting for it.
const LOOK: Duration = Duration::from_millis(500);

/// What can be done with rollouts.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Rolls a released bundle out: one device first, then all others.
    Start {
        /// Its digest, the beginning of it, or NAME/VERSION.
        bundle: String,
        /// The device that goes first; the hub picks one without it.
        #[arg(long, value_name = "DEVICE")]
        canary: Option<DeviceId>,
        /// Waits until every device proved it, or the rollout ended otherwise.
        #[arg(long)]
        wait: bool,
    },
    /// Lists the rollouts, the newest first.
    List,
    /// Shows one rollout and its devices.
    Show {
        /// Its number.
        rollout: u64,
    },
    /// Ends a rollout; devices that were given its bundle go back to what they ran before.
    Cancel {
        /// Its number.
        rollout: u64,
    },
    /// Goes back: ends the rollout under way, or rolls the bundle out that the fleet ran before, to all
    /// devices at once.
    Back {
        /// Waits until every device that is there has answered with it.
        #[arg(long)]
        wait: bool,
    },
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused, or the rollout did not reach every device.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start { bundle, canary, wait: waits } => {
            let bundle = resolve::bundle(client, &bundle).await?;
            let operation = format!("start a rollout of {}", bundle.0.short());
            let request = RolloutRequest { bundle, canary };
            let mut rollout: Rollout = client.post(&operation, "/rollouts", &request).await?;
            if waits {
                rollout = wait(client, rollout.id).await?;
            }
            output.print(&rollout, |rollout| show(rollout, Clock::system().now().0))?;
            match &rollout.phase {
                Phase::Halted { device, reason } => {
                    bail!("rollout {} was halted by {device}: {reason}", rollout.id.0)
                }
                Phase::Cancelled => bail!("rollout {} was cancelled", rollout.id.0),
                Phase::Canary | Phase::Everyone | Phase::Done => Ok(()),
            }
        }
        Command::List => {
            let all: Vec<Rollout> = client.get("list rollouts", "/rollouts").await?;
            output.print(&all, |all| list(all))
        }
        Command::Show { rollout } => {
            let operation = format!("show rollout {rollout}");
            let found: Rollout = client.get(&operation, &format!("/rollouts/{rollout}")).await?;
            output.print(&found, |rollout| show(rollout, Clock::system().now().0))
        }
        Command::Cancel { rollout } => {
            let operation = format!("cancel rollout {rollout}");
            let path = format!("/rollouts/{rollout}/cancel");
            let found: Rollout = client.post(&operation, &path, &serde_json::json!({})).await?;
            output.print(&found, |rollout| show(rollout, Clock::system().now().0))
        }
        Command::Back { wait: waits } => {
            let nothing = serde_json::json!({});
            let mut rollout: Rollout = client.post("go back", "/rollouts/back", &nothing).await?;
            if waits {
                rollout = wait(client, rollout.id).await?;
            }
            output.print(&rollout, |rollout| show(rollout, Clock::system().now().0))
        }
    }
}

async fn wait(client: &Client, id: RolloutId) -> anyhow::Result<Rollout> {
    let mut progress = Progress::new("rolling out", 0);
    loop {
        let operation = format!("wait for rollout {}", id.0);
        let rollout: Rollout = client.get(&operation, &format!("/rollouts/{}", id.0)).await?;
        let total = rollout.members.len() as u64;
        progress.set(proven(&rollout) as u64, total);
        let waits = rollout.waits.iter().map(|one| waiting(one, Clock::system().now().0));
        let words: Vec<String> = std::iter::once(phase(&rollout)).chain(waits.take(1)).collect();
        let words = words.join("; ");
        progress.say(&words, &words);
        match rollout.phase {
            Phase::Canary | Phase::Everyone => tokio::time::sleep(LOOK).await,
            Phase::Done | Phase::Halted { .. } | Phase::Cancelled => {
                progress.finish();
                return Ok(rollout);
            }
        }
    }
}

/// How many devices proved what is rolled out.
pub fn proven(rollout: &Rollout) -> usize {
    rollout.members.iter().filter(|m| m.state == MemberState::Proven).count()
}

/// Where a rollout stands, in a few words.
pub fn phase(rollout: &Rollout) -> String {
    let late = rollout.members.iter().filter(|m| m.state == MemberState::Late).count();
    match &rollout.phase {
        Phase::Canary => "testing on one device".into(),
        Phase::Everyone if rollout.back => "all go back".into(),
        Phase::Everyone => "all others follow".into(),
        Phase::Done if late > 0 => format!("done; {late} late, they follow when they are back"),
        Phase::Done => "done".into(),
        Phase::Halted { device, reason } => format!("halted by {device}: {reason}"),
        Phase::Cancelled => "cancelled".into(),
    }
}

/// Where a device stands in it, in a few words.
pub fn member(member: &Member) -> String {
    let away = |word: &str| match member.presence {
        Some(Presence::Online) | None => word.to_owned(),
        Some(presence) => format!("{word}; {}", devices::presence(presence)),
    };
    match &member.state {
        MemberState::Waiting => away("waits"),
        MemberState::Assigned => away("asked"),
        MemberState::Proven => "proven".into(),
        MemberState::Late => away("late"),
        MemberState::Failed { reason } => format!("failed: {reason}"),
    }
}

/// For whom a rollout waits, since when, and what comes then.
pub fn waiting(wait: &Wait, now_ms: u64) -> String {
    let since = human::duration(now_ms.saturating_sub(wait.since_ms));
    let who =
        format!("waits for {} ({}) since {since}", wait.device, devices::presence(wait.presence));
    match wait.until_ms {
        Some(until) => {
            format!("{who}, {} more at most", human::duration(until.saturating_sub(now_ms)))
        }
        None => format!("{who}, until another device is there; a new rollout may begin"),
    }
}

fn list(all: &[Rollout]) -> String {
    let mut table = Table::new(&["#rollout", "bundle", "phase", "#proven", "started (UTC)", "by"]);
    for rollout in all {
        table.row([
            rollout.id.0.to_string(),
            rollout.bundle.0.short(),
            phase(rollout),
            format!("{}/{}", proven(rollout), rollout.members.len()),
            human::time(rollout.started_at_ms),
            rollout.started_by.clone(),
        ]);
    }
    table.render("no rollouts yet; 'fleet-hub rollout start BUNDLE' begins one")
}

fn show(rollout: &Rollout, now_ms: u64) -> String {
    let mut out = facts(&[
        ("rollout", rollout.id.0.to_string()),
        ("bundle", rollout.bundle.to_string()),
        ("phase", phase(rollout)),
        ("started", format!("{} by {}", human::time(rollout.started_at_ms), rollout.started_by)),
    ]);
    for wait in &rollout.waits {
        writeln!(out, "{}", waiting(wait, now_ms)).ok();
    }
    let mut table = Table::new(&["device", "before", "state"]);
    for one in &rollout.members {
        let before = one.before.map_or("-".into(), |bundle| bundle.0.short());
        table.row([one.device.to_string(), before, member(one)]);
    }
    out.push('\n');
    out.push_str(&table.render("it has no devices"));
    out
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::{BundleDigest, Digest};

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn waits(presence: Presence, until_ms: Option<u64>) -> Rollout {
        let device: DeviceId = "dev-a".parse().unwrap();
        let state = MemberState::Assigned;
        let before = None;
        Rollout {
            id: RolloutId(3),
            bundle: BundleDigest(Digest::of(b"x")),
            phase: Phase::Canary,
            back: false,
            members: vec![Member {
                device: device.clone(),
                before,
                state,
                presence: Some(presence),
            }],
            waits: vec![Wait { device, presence, since_ms: NOW - 180_000, until_ms }],
            started_by: "admin".into(),
            started_at_ms: NOW - 180_000,
        }
    }

    #[test]
    fn a_wait_says_for_whom_since_when_and_how_long_yet() {
        let text = show(&waits(Presence::Stopped, Some(NOW + 120_000)), NOW);
        let wait = "waits for dev-a (offline: stopped) since 3 min, 2 min more at most";
        assert!(text.contains(wait) && text.contains("asked; offline: stopped"), "{text}");
        let text = show(&waits(Presence::Silent, None), NOW);
        assert!(text.contains("until another device is there"), "{text}");
        let online = show(&waits(Presence::Online, Some(NOW + 1)), NOW);
        assert!(!online.contains("offline"), "{online}");
    }

    #[test]
    fn a_rollout_that_ended_without_a_device_says_so() {
        let mut rollout = waits(Presence::Stopped, None);
        (rollout.phase, rollout.waits) = (Phase::Done, Vec::new());
        rollout.members[0].state = MemberState::Late;
        rollout.members[0].presence = None;
        assert!(list(std::slice::from_ref(&rollout)).contains("1 late"));
        assert!(show(&rollout, NOW).contains("follow when they are back"));
    }
}
