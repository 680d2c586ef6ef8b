//! `fleet-hub device …`

use fleetloop_observe::output::Output;
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::api::devices::{
    Device, DeviceState, EpochSummary, KeepRequest, Presence, ReadmitRequest, ReplaceRequest,
    Stranger, TokenRequest, TokenResponse,
};
use fleetloop_protocol::state::Update;

use super::client::Client;
use super::human;
use super::resolve;
use super::table::{Table, facts};
use crate::clock::Clock;

/// How what a device could not send any more is fetched.
pub const FETCH_LEFT_BEHIND: &str = "fetch them with 'edge-agent outbox export' on the device, then \
    'fleet-hub sample collect FILE'";

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
        /// Its id, the beginning of it, or its name.
        device: String,
    },
    /// Makes an enrolment token for a device that takes another's place: its orders, its part in
    /// the rollout, and its name. The old device is shut out when the new one enrols.
    Replace {
        /// The old device: its id, the beginning of it, or its name.
        old: String,
        /// What people call the new device; without it, what they called the old one.
        #[arg(long)]
        name: Option<String>,
        /// How long the token is good for, in hours.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=24))]
        valid_hours: u64,
    },
    /// Lists devices that this hub's CA certified and that this hub does not know: they enrolled after
    /// the backup that the hub was restored from.
    Strangers,
    /// Takes such a device in again.
    Readmit {
        /// Its id, as 'fleet-hub device strangers' shows it.
        device: DeviceId,
        /// What people call it.
        #[arg(long)]
        name: String,
    },
    /// Shows the epochs of a device, one for each life of its outbox, and what of them is kept out of
    /// datasets.
    Epochs {
        /// Its id, the beginning of it, or its name.
        device: String,
    },
    /// Decides which samples of a cloned device count, after the copy was found and stopped. Only
    /// samples that are held are decided about; the others of them stay out of datasets for good.
    #[command(group(clap::ArgGroup::new("which").required(true)))]
    Keep {
        /// Its id, the beginning of it, or its name.
        device: String,
        /// An epoch whose held samples count, as 'device epochs' shows it; may be given again.
        #[arg(long = "epoch", group = "which", value_name = "EPOCH")]
        epochs: Vec<String>,
        /// All of them count.
        #[arg(long, group = "which")]
        all: bool,
        /// None of them counts.
        #[arg(long, group = "which")]
        none: bool,
    },
    /// Shuts a device out for good: its sessions end and its certificate is worth nothing.
    Revoke {
        /// Its id, the beginning of it, or its name.
        device: String,
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
            let device = resolve::device(client, &device).await?;
            let found: Device =
                client.get(&format!("show device {device}"), &format!("/devices/{device}")).await?;
            output.print(&found, |one| show(one, Clock::system().now().0))
        }
        Command::Replace { old, name, valid_hours } => {
            let old = resolve::device(client, &old).await?;
            let operation = format!("replace device {old}");
            let request = ReplaceRequest { name, valid_s: valid_hours * 3600 };
            let path = format!("/devices/{old}/replace");
            let answer: TokenResponse = client.post(&operation, &path, &request).await?;
            output.print(&answer, |answer| {
                format!("{}\n{old} works on until the new device has enrolled.\n", token(answer))
            })
        }
        Command::Strangers => {
            let found: Vec<Stranger> = client.get("list strangers", "/devices/strangers").await?;
            output.print(&found, |all| strangers(all, Clock::system().now().0))
        }
        Command::Readmit { device, name } => {
            let operation = format!("take device {device} in again");
            let path = format!("/devices/{device}/readmit");
            let found: Device = client.post(&operation, &path, &ReadmitRequest { name }).await?;
            output.print(&found, |one| format!("{} ({}) is enrolled again\n", one.id, one.name))
        }
        Command::Epochs { device } => {
            let device = resolve::device(client, &device).await?;
            let path = format!("/devices/{device}/epochs");
            let all: Vec<EpochSummary> =
                client.get(&format!("show the epochs of device {device}"), &path).await?;
            output.print(&all, |all| epochs(all))
        }
        Command::Keep { device, epochs: kept, all, none: _ } => {
            let device = resolve::device(client, &device).await?;
            let path = format!("/devices/{device}/epochs");
            let request = KeepRequest { epochs: (!all).then_some(kept) };
            let decided: Vec<EpochSummary> = client
                .post(&format!("decide about samples of device {device}"), &path, &request)
                .await?;
            output.print(&decided, |all| epochs(all))
        }
        Command::Revoke { device } => {
            let device = resolve::device(client, &device).await?;
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

fn strangers(all: &[Stranger], now_ms: u64) -> String {
    let mut table = Table::new(&["device", "first seen", "last seen", "certificate until"]);
    for stranger in all {
        table.row([
            stranger.device.to_string(),
            human::ago(stranger.first_seen_ms, now_ms),
            human::ago(stranger.last_seen_ms, now_ms),
            human::time(stranger.certificate_ends_ms),
        ]);
    }
    table.render("no device came that this hub does not know")
}

fn epochs(all: &[EpochSummary]) -> String {
    let mut table =
        Table::new(&["epoch", "first (UTC)", "last (UTC)", "#stored", "#held", "#dropped"]);
    for one in all {
        table.row([
            one.epoch.clone(),
            human::time(one.first_stored_ms),
            human::time(one.last_stored_ms),
            one.samples.to_string(),
            one.held.to_string(),
            one.dropped.to_string(),
        ]);
    }
    table.render("no samples of this device yet")
}

fn list(devices: &[Device], now_ms: u64) -> String {
    let mut table = Table::new(&[
        "device", "name", "state", "seen", "running", "update", "#queued", "#sent", "#refused",
    ]);
    for device in devices {
        let telemetry = device.telemetry.as_ref();
        table.row([
            device.id.to_string(),
            device.name.clone(),
            standing(device).to_owned(),
            seen(device, now_ms),
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

/// Whether a device is there, in a word or two.
pub fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Never => "offline: never reported",
        Presence::Stopped => "offline: stopped",
        Presence::Silent => "offline",
        Presence::Online => "online",
    }
}

/// Whether a device is there, and when it was last heard.
pub fn seen(device: &Device, now_ms: u64) -> String {
    let ago = device.last_seen_ms.map(|at| human::ago(at, now_ms));
    match (device.presence, ago) {
        (Presence::Never, _) | (_, None) => "never".to_owned(),
        (Presence::Online, Some(ago)) => ago,
        (away, Some(ago)) => format!("{}, {ago}", presence(away)),
    }
}

/// The same, or that two machines speak as it.
pub fn standing(device: &Device) -> &'static str {
    if device.cloned_since_ms.is_some() { "CLONED" } else { state(device.state) }
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
        ("certificate", {
            let end = device.certificate_ends_ms;
            let verb = if end <= now_ms { "expired" } else { "until" };
            format!("{verb} {} UTC", human::time(end))
        }),
        ("seen", seen(device, now_ms)),
        ("agent", device.agent_version.clone()),
        ("running", bundle(device.running)),
        (
            "target model",
            format!("{} (generation {})", bundle(device.desired), device.generation.0),
        ),
        ("update", update(device)),
        ("samples stored", device.samples_stored.to_string()),
        ("refusals", device.refusals.to_string()),
    ];
    if let Some(since) = device.cloned_since_ms {
        let text = format!(
            "since {} UTC two machines speak as this device: find the copy and stop it, then \
             'fleet-hub device epochs {}' and 'fleet-hub device keep'; enrol the copy anew",
            human::time(since),
            device.id
        );
        pairs.push(("CLONED", text));
    }
    if device.samples_held > 0 {
        pairs.push(("samples held", format!("{}, in no dataset", device.samples_held)));
    }
    pairs.extend(device.revoked_by.iter().map(|who| ("revoked by", who.clone())));
    if device.left_behind > 0 {
        let text = format!("{} messages when last heard; {FETCH_LEFT_BEHIND}", device.left_behind);
        pairs.push(("left behind", text));
    } else if device.replaced_by.is_some() {
        let text =
            format!("none when last heard; if it ran on without the hub, {FETCH_LEFT_BEHIND}");
        pairs.push(("left behind", text));
    }
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
            certificate_ends_ms: 20_000,
            replaces: Some("dev-old".parse().unwrap()),
            replaced_by: None,
            presence: Presence::Online,
            last_seen_ms: Some(10_000),
            agent_version: "0.1.0".into(),
            running: None,
            desired: None,
            generation: Generation(0),
            update: None,
            telemetry: None,
            samples_stored: 3,
            samples_held: 0,
            cloned_since_ms: None,
            refusals: 0,
            revoked_by: None,
            left_behind: 0,
        }
    }

    #[test]
    fn a_device_that_never_reported_is_listed() {
        let text = list(&[device()], 40_000);
        assert!(text.contains("press 7"), "{text}");
        assert!(text.contains("30 s ago") && !text.contains("offline"), "{text}");
        let stopped = Device { presence: Presence::Stopped, ..device() };
        let text = list(std::slice::from_ref(&stopped), 40_000);
        assert!(text.contains("offline: stopped, 30 s ago"), "{text}");
        assert!(show(&stopped, 40_000).contains("offline: stopped"));
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
    fn a_cloned_device_is_shown_as_one_with_the_next_step() {
        let cloned = Device { cloned_since_ms: Some(5_000), samples_held: 9, ..device() };
        assert!(list(std::slice::from_ref(&cloned), 10_000).contains("CLONED"));
        let text = show(&cloned, 10_000);
        assert!(text.contains("device keep") && text.contains("9, in no dataset"), "{text}");
        assert!(!list(&[device()], 10_000).contains("CLONED"));
    }

    #[test]
    fn a_replaced_device_says_what_it_could_not_send_and_how_to_fetch_it() {
        let (state, revoked_by) = (DeviceState::Revoked, Some("dev-new".to_owned()));
        let text = show(&Device { state, revoked_by, left_behind: 12, ..device() }, 10_000);
        assert!(text.contains("12 messages") && text.contains("sample collect"), "{text}");
        assert!(!show(&device(), 10_000).contains("left behind"));
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
