//! `fleet-hub device …`

use fleetloop_observe::output::Output;
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::api::devices::{
    Device, DeviceState, ReplaceRequest, TokenRequest, TokenResponse,
};
use fleetloop_protocol::state::Update;

use super::client::Client;
use super::human;
use super::table::{Table, facts};
use crate::clock::Clock;

/// What can be done with devices.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Makes an enrolment token for a new device; it is shown once.
    Add {
        /// What people call the device: where it hangs, what it watches.
        name: String,
        /// How long the token is good for, in hours.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=24))]
        valid_hours: u64,
    },
    /// Lists all devices.
    List,
    /// Shows one device.
    Show {
        /// Its id.
        device: DeviceId,
    },
    /// Makes an enrolment token for a device that takes another's place: its orders, its part in
    /// the rollout, and its name. The old device is shut out when the new one enrols.
    Replace {
        /// The old device's id.
        old: DeviceId,
        /// What people call the new device; without it, what they called the old one.
        #[arg(long)]
        name: Option<String>,
        /// How long the token is good for, in hours.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=24))]
        valid_hours: u64,
    },
    /// Shuts a device out for good: its sessions end and its certificate is worth nothing.
    Revoke {
        /// Its id.
        device: DeviceId,
    },
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add { name, valid_hours } => {
            let request = TokenRequest { name, valid_s: valid_hours * 3600 };
            let answer: TokenResponse =
                client.post("make an enrolment token", "/devices/tokens", &request).await?;
            output.print(&answer, token)
        }
        Command::List => {
            let devices: Vec<Device> = client.get("list devices", "/devices").await?;
            output.print(&devices, |all| list(all, Clock::system().now().0))
        }
        Command::Show { device } => {
            let found: Device =
                client.get(&format!("show device {device}"), &format!("/devices/{device}")).await?;
            output.print(&found, |one| show(one, Clock::system().now().0))
        }
        Command::Replace { old, name, valid_hours } => {
            let operation = format!("replace device {old}");
            let request = ReplaceRequest { name, valid_s: valid_hours * 3600 };
            let path = format!("/devices/{old}/replace");
            let answer: TokenResponse = client.post(&operation, &path, &request).await?;
            output.print(&answer, |answer| {
                format!("{}\n{old} works on until the new device has enrolled.\n", token(answer))
            })
        }
        Command::Revoke { device } => {
            let operation = format!("revoke device {device}");
            let path = format!("/devices/{device}/revoke");
            let found: Device = client.post(&operation, &path, &serde_json::json!({})).await?;
            output.print(&found, |one| format!("revoked {} ({})\n", one.id, one.name))
        }
    }
}

fn token(answer: &TokenResponse) -> String {
    format!(
        "{}\n\nGood once, until {} UTC. On the device:\n  edge-agent enroll --token TOKEN --data DIR\n",
        answer.token,
        human::time(answer.expires_at_ms)
    )
}

fn list(devices: &[Device], now_ms: u64) -> String {
    let mut table = Table::new(&[
        "device", "name", "state", "seen", "running", "update", "#outbox", "#stored", "#refused",
    ]);
    for device in devices {
        let telemetry = device.telemetry.as_ref();
        table.row([
            device.id.to_string(),
            device.name.clone(),
            state(device.state).to_owned(),
            device.last_seen_ms.map_or("never".into(), |at| human::ago(at, now_ms)),
            device.running.map_or("-".into(), |bundle| bundle.0.short()),
            update(device),
            telemetry.map_or("-".into(), |t| t.outbox_rows.to_string()),
            device.samples_stored.to_string(),
            device.refusals.to_string(),
        ]);
    }
    table.render("no devices yet; make a token with 'fleet-hub device add NAME'")
}

/// Where a device stands, in a word.
pub fn state(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Enrolled => "enrolled",
        DeviceState::Revoked => "revoked",
    }
}

/// What becomes of a device's last order, in a few words.
pub fn update(device: &Device) -> String {
    match &device.update {
        Some(Update::Installing { bundle }) => format!("installing {}", bundle.0.short()),
        Some(Update::Failed { bundle, reason }) => {
            format!("failed {}: {reason}", bundle.0.short())
        }
        Some(Update::Idle) | None if device.desired.is_none() => "-".into(),
        Some(Update::Idle) | None if device.desired == device.running => "up to date".into(),
        Some(Update::Idle) | None => "asked".into(),
    }
}

fn show(device: &Device, now_ms: u64) -> String {
    let bundle = |b: Option<fleetloop_protocol::BundleDigest>| {
        b.map_or("-".to_owned(), |bundle| bundle.to_string())
    };
    let mut pairs = vec![
        ("device", device.id.to_string()),
        ("name", device.name.clone()),
        ("state", state(device.state).to_owned()),
        ("enrolled", human::time(device.enrolled_at_ms)),
        (
            "certificate",
            device.certificate_ends_ms.map_or("-".into(), |end| {
                let verb = if end <= now_ms { "expired" } else { "until" };
                format!("{verb} {} UTC", human::time(end))
            }),
        ),
        ("seen", device.last_seen_ms.map_or("never".into(), |at| human::ago(at, now_ms))),
        ("agent", device.agent_version.clone()),
        ("running", bundle(device.running)),
        ("desired", format!("{} (generation {})", bundle(device.desired), device.generation.0)),
        ("update", update(device)),
        ("samples stored", device.samples_stored.to_string()),
        ("refusals", device.refusals.to_string()),
    ];
    pairs.extend(device.replaces.iter().map(|old| ("replaces", old.to_string())));
    pairs.extend(device.replaced_by.iter().map(|new| ("replaced by", new.to_string())));
    if let Some(t) = &device.telemetry {
        pairs.extend([
            ("frames in", t.frames_in.to_string()),
            ("frames answered", t.frames_answered.to_string()),
            ("frames dropped", t.frames_dropped.to_string()),
            ("outbox", format!("{} rows, {}", t.outbox_rows, human::bytes(t.outbox_bytes))),
            ("dead letters", t.dead_letters.to_string()),
            ("latency", format!("{} µs median, {} µs p99", t.latency_us_p50, t.latency_us_p99)),
            ("peak memory", human::bytes(t.peak_rss_bytes)),
        ]);
    }
    facts(&pairs)
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::{BundleDigest, Digest, Generation};

    use super::*;

    fn device() -> Device {
        Device {
            id: "dev-a".parse().unwrap(),
            name: "press 7".into(),
            state: DeviceState::Enrolled,
            enrolled_at_ms: 0,
            certificate_ends_ms: Some(20_000),
            replaces: Some("dev-old".parse().unwrap()),
            replaced_by: None,
            last_seen_ms: Some(10_000),
            agent_version: "0.1.0".into(),
            running: None,
            desired: None,
            generation: Generation(0),
            update: None,
            telemetry: None,
            samples_stored: 3,
            refusals: 0,
        }
    }

    #[test]
    fn a_device_that_never_reported_is_listed() {
        let text = list(&[device()], 40_000);
        assert!(text.contains("press 7"), "{text}");
        assert!(text.contains("30 s ago"), "{text}");
        assert!(list(&[], 0).contains("device add"));
    }

    #[test]
    fn a_device_names_the_one_it_replaces_and_when_its_certificate_ends() {
        let text = show(&device(), 10_000);
        assert!(text.contains("replaces") && text.contains("dev-old"), "{text}");
        assert!(text.contains("until 1970-01-01") && !text.contains("replaced by"), "{text}");
        assert!(show(&device(), 30_000).contains("expired 1970-01-01"));
    }

    #[test]
    fn a_failed_update_says_why() {
        let bundle = BundleDigest(Digest::of(b"x"));
        let update_state = Update::Failed { bundle, reason: "golden case 3".into() };
        let device = Device { update: Some(update_state), desired: Some(bundle), ..device() };
        assert!(update(&device).contains("golden case 3"));
        let asked = Device { update: Some(Update::Idle), ..device };
        assert_eq!(update(&asked), "asked");
    }
}
