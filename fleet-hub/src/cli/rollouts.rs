//! `fleet-hub rollout …`

use std::time::Duration;

use anyhow::bail;
use fleetloop_observe::output::Output;
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::api::rollouts::{
    Member, MemberState, Phase, Rollout, RolloutId, RolloutRequest,
};

use super::client::Client;
use super::human;
use super::progress::Progress;
use super::resolve;
use super::table::{Table, facts};

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
    /// Ends a rollout; devices stay at what they run.
    Cancel {
        /// Its number.
        rollout: u64,
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
            output.print(&rollout, show)?;
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
            output.print(&found, show)
        }
        Command::Cancel { rollout } => {
            let operation = format!("cancel rollout {rollout}");
            let path = format!("/rollouts/{rollout}/cancel");
            let found: Rollout = client.post(&operation, &path, &serde_json::json!({})).await?;
            output.print(&found, show)
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
        let words = phase(&rollout.phase);
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
pub fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Canary => "one device proves it".into(),
        Phase::Everyone => "all others follow".into(),
        Phase::Done => "done".into(),
        Phase::Halted { device, reason } => format!("halted by {device}: {reason}"),
        Phase::Cancelled => "cancelled".into(),
    }
}

/// Where a device stands in it, in a few words.
pub fn member(member: &Member) -> String {
    match &member.state {
        MemberState::Waiting => "waits".into(),
        MemberState::Assigned => "asked".into(),
        MemberState::Proven => "proven".into(),
        MemberState::Failed { reason } => format!("failed: {reason}"),
    }
}

fn list(all: &[Rollout]) -> String {
    let mut table = Table::new(&["#rollout", "bundle", "phase", "#proven", "started (UTC)", "by"]);
    for rollout in all {
        table.row([
            rollout.id.0.to_string(),
            rollout.bundle.0.short(),
            phase(&rollout.phase),
            format!("{}/{}", proven(rollout), rollout.members.len()),
            human::time(rollout.started_at_ms),
            rollout.started_by.clone(),
        ]);
    }
    table.render("no rollouts yet; 'fleet-hub rollout start BUNDLE' begins one")
}

fn show(rollout: &Rollout) -> String {
    let mut out = facts(&[
        ("rollout", rollout.id.0.to_string()),
        ("bundle", rollout.bundle.to_string()),
        ("phase", phase(&rollout.phase)),
        ("started", format!("{} by {}", human::time(rollout.started_at_ms), rollout.started_by)),
    ]);
    let mut table = Table::new(&["device", "before", "state"]);
    for one in &rollout.members {
        let before = one.before.map_or("-".into(), |bundle| bundle.0.short());
        table.row([one.device.to_string(), before, member(one)]);
    }
    out.push('\n');
    out.push_str(&table.render("it has no devices"));
    out
}
