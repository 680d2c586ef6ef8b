//! `fleet-hub finding …`

use fleetloop_observe::output::Output;
use fleetloop_protocol::api::findings::{AcknowledgeRequest, Finding};

use super::client::{Client, query};
use super::human;
use super::resolve;
use super::table::Table;
use crate::clock::Clock;

/// What can be done with findings.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists findings: alarms first, then the last seen first.
    List {
        /// Of one device only: its id, the beginning of it, or its name.
        #[arg(long)]
        device: Option<String>,
        /// Acknowledged ones too.
        #[arg(long)]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Notes that you have seen to a finding. It is open again when it happens again more than a
    /// day later.
    Acknowledge {
        /// Its number, as 'finding list' shows it.
        id: u64,
        /// What you found or did, for the audit log.
        #[arg(long, default_value = "")]
        note: String,
    },
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { device, all, limit } => {
            let device = match device {
                Some(text) => Some(resolve::device(client, &text).await?),
                None => None,
            };
            let query = query(&[
                ("device", device.map(|device| device.to_string())),
                ("all", all.then(|| "true".to_owned())),
                ("limit", Some(limit.to_string())),
            ]);
            let found: Vec<Finding> =
                client.get("list findings", &format!("/findings{query}")).await?;
            output.print(&found, |found| list(found, Clock::system().now().0))
        }
        Command::Acknowledge { id, note } => {
            let operation = format!("acknowledge finding {id}");
            let path = format!("/findings/{id}/acknowledge");
            let found: Finding =
                client.post(&operation, &path, &AcknowledgeRequest { note }).await?;
            output.print(&found, |one| format!("acknowledged {}: {}\n", one.id, one.kind))
        }
    }
}

fn list(findings: &[Finding], now_ms: u64) -> String {
    let mut table = Table::new(&[
        "#id",
        "severity",
        "kind",
        "device",
        "subject",
        "#count",
        "first (UTC)",
        "last",
        "state",
        "detail",
    ]);
    for finding in findings {
        table.row([
            finding.id.to_string(),
            finding.severity.as_str().to_owned(),
            finding.kind.clone(),
            finding.device.as_ref().map_or("-".into(), ToString::to_string),
            finding.subject.clone(),
            finding.count.to_string(),
            human::time(finding.first_at_ms),
            human::ago(finding.last_at_ms, now_ms),
            finding
                .acknowledged
                .as_ref()
                .map_or("open".into(), |seen| format!("seen by {}", seen.by)),
            finding.detail.clone(),
        ]);
    }
    let mut text = table.render("no open findings; '--all' shows acknowledged ones too");
    let mut kinds: Vec<&Finding> = findings.iter().collect();
    kinds.sort_by(|a, b| a.kind.cmp(&b.kind));
    kinds.dedup_by(|a, b| a.kind == b.kind);
    for finding in kinds {
        text.push_str(&format!("\n{}: {}", finding.kind, finding.meaning));
    }
    text
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::api::findings::Severity;

    use super::*;

    #[test]
    fn each_finding_has_a_line_and_each_kind_its_sentence_once() {
        let finding = |id| Finding {
            id,
            kind: "clone".into(),
            severity: Severity::Alarm,
            device: Some("dev-1".parse().unwrap()),
            subject: format!("epoch {id}"),
            detail: "two keys".into(),
            meaning: "Two machines are one device; find the other.".into(),
            count: 3,
            first_at_ms: 0,
            last_at_ms: 60_000,
            acknowledged: None,
        };
        let text = list(&[finding(7), finding(8)], 120_000);
        assert_eq!(text.lines().filter(|line| line.contains("alarm")).count(), 2, "{text}");
        assert_eq!(text.matches("find the other").count(), 1, "{text}");
        assert!(text.contains("epoch 7") && text.contains("60 s ago") && text.contains("open"));
        assert!(list(&[], 0).starts_with("no open findings"));
    }
}
