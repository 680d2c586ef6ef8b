//! `hub.toml`: parsed once into a validated struct; unknown keys are errors; all errors together.
//!
//! Everything has a default but the addresses that `fleet-hub init` writes. Paths of the data
//! directory are fixed (see [`Paths`]) so that a backup is one directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fleetloop_protocol::hub_addresses::{BrokerAddress, HUB_HOSTS};
use serde::{Deserialize, Serialize};

use crate::backup::key::recipient;
use crate::hosts::name;
use crate::limits::Limits;

/// The file's name within the data directory.
pub const FILE: &str = "hub.toml";

/// The largest `hub.toml` that is read, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;

/// The file as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The names by which devices and people reach this hub, the primary one first; all are in the
    /// server certificate.
    pub hosts: Vec<String>,
    /// Where admin pages, API and enrolment listen.
    pub admin_listen: String,
    /// Where devices fetch metadata and artefacts.
    pub device_listen: String,
    /// Where the embedded broker listens; of no use with an external one.
    pub mqtt_listen: String,
    /// `"embedded"`, or an external broker as `mqtts://host:port`.
    #[serde(default = "embedded")]
    pub broker: String,
    /// Who can open backups: age recipients (`age1…`). Without any, no backup is made.
    #[serde(default)]
    pub backup_recipients: Vec<String>,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// What is sent about the hub itself.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// The worker that the hub starts beside itself.
    #[serde(default)]
    pub worker: Worker,
}

/// `[worker]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// ONNX Runtime's library; searched for when absent.
    pub library: Option<PathBuf>,
}

/// `[telemetry]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The base address of an OTLP collector (HTTP, protobuf); no spans are made when absent.
    pub otlp: Option<String>,
}

impl Telemetry {
    fn problems(&self) -> Option<String> {
        let is_http = |address: &String| {
            url::Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        };
        let bad = self.otlp.as_ref().filter(|address| !is_http(address))?;
        Some(format!("telemetry.otlp = {bad:?} is not an http:// or https:// address"))
    }
}

fn embedded() -> String {
    "embedded".into()
}

/// Which broker carries the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerKind {
    /// The one inside this process.
    Embedded,
    /// Another one, reached as any client reaches it.
    External {
        /// Its host name, as in its certificate.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// The configuration, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything lies.
    pub paths: Paths,
    /// The names in the server certificate, the primary one first; never empty.
    pub hosts: Vec<String>,
    /// Where admin pages, API and enrolment listen.
    pub admin_listen: SocketAddr,
    /// Where devices fetch metadata and artefacts.
    pub device_listen: SocketAddr,
    /// Where the embedded broker listens.
    pub mqtt_listen: SocketAddr,
    /// Which broker.
    pub broker: BrokerKind,
    /// Who can open backups: age recipients, each valid.
    pub backup_recipients: Vec<String>,
    /// Limits.
    pub limits: Limits,
    /// What is sent about the hub itself.
    pub telemetry: Telemetry,
    /// The worker that the hub starts beside itself.
    pub worker: Worker,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}; is the data directory right? 'fleet-hub init' makes one")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a key that is missing.
    #[error("cannot read {path}: not a hub configuration")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Values that cannot be, all of them.
    #[error("cannot use {path}: {}", .problems.join("; "))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Each with its key.
        problems: Vec<String>,
    },
}

impl Config {
    /// Reads `hub.toml` of `data_dir`.
    ///
    /// # Errors
    /// It cannot be read or parsed, or some values cannot be; all of those are named.
    pub fn load(data_dir: &Path) -> Result<Self, ConfigError> {
        let path = data_dir.join(FILE);
        let read = |source| ConfigError::Read { path: path.clone(), source };
        if std::fs::metadata(&path).map_err(read)?.len() > FILE_BYTES {
            return Err(read(std::io::Error::other("it is larger than 1 MiB")));
        }
        let text = std::fs::read_to_string(&path).map_err(read)?;
        Self::parse(data_dir, &text)
    }

    /// Validates the text of a `hub.toml` that lies (or will lie) in `data_dir`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(data_dir: &Path, text: &str) -> Result<Self, ConfigError> {
        let path = data_dir.join(FILE);
        let file: ConfigFile = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.clone(),
            source: Box::new(source),
        })?;
        let mut problems = Vec::new();
        let mut address = |key: &str, text: &str| match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Some(address),
            _ => {
                problems.push(format!("{key} = {text:?} is not address:port with a port above 0"));
                None
            }
        };
        let admin = address("admin_listen", &file.admin_listen);
        let device = address("device_listen", &file.device_listen);
        let mqtt = address("mqtt_listen", &file.mqtt_listen);
        let broker = broker(&file.broker).map_err(|problem| problems.push(problem)).ok();
        let hosts = hosts(&file.hosts, &mut problems);
        problems
            .extend(mqtt.filter(|_| broker == Some(BrokerKind::Embedded)).and_then(unreachable));
        let recipients = file.backup_recipients.iter();
        problems.extend(recipients.filter_map(|text| Some(recipient(text).err()?.to_string())));
        problems.extend(file.limits.problems());
        problems.extend(file.telemetry.problems());
        match (admin, device, mqtt, broker) {
            (Some(admin_listen), Some(device_listen), Some(mqtt_listen), Some(broker))
                if problems.is_empty() =>
            {
                Ok(Self {
                    paths: Paths::new(data_dir),
                    hosts,
                    admin_listen,
                    device_listen,
                    mqtt_listen,
                    broker,
                    backup_recipients: file.backup_recipients,
                    limits: file.limits,
                    telemetry: file.telemetry,
                    worker: file.worker,
                })
            }
            _ => Err(ConfigError::Invalid { path, problems }),
        }
    }

    /// The primary name.
    pub fn host(&self) -> &str {
        self.hosts.first().map_or("localhost", String::as_str)
    }

    /// The brokers as devices reach them, by each of the hub's names; an external one by its own.
    pub fn brokers(&self) -> Vec<BrokerAddress> {
        match &self.broker {
            BrokerKind::Embedded => {
                let port = self.mqtt_listen.port();
                self.hosts.iter().map(|host| BrokerAddress { host: host.clone(), port }).collect()
            }
            BrokerKind::External { host, port } => {
                vec![BrokerAddress { host: host.clone(), port: *port }]
            }
        }
    }

    /// The base URLs of the device listener, by each of the hub's names.
    pub fn device_urls(&self) -> Vec<String> {
        let port = self.device_listen.port();
        self.hosts.iter().map(|host| format!("https://{host}:{port}")).collect()
    }

    /// The broker as devices and the hub's own client reach it.
    pub fn mqtt_address(&self) -> (String, u16) {
        match &self.broker {
            BrokerKind::Embedded => (self.host().to_owned(), self.mqtt_listen.port()),
            BrokerKind::External { host, port } => (host.clone(), *port),
        }
    }

    /// The broker as the hub's own client reaches it: the embedded one on this machine, whatever
    /// the host name resolves to.
    pub fn own_mqtt_address(&self) -> (String, u16) {
        match &self.broker {
            BrokerKind::Embedded
                if self.mqtt_listen.is_ipv6() || self.mqtt_listen.ip().is_unspecified() =>
            {
                ("localhost".into(), self.mqtt_listen.port())
            }
            BrokerKind::Embedded => (self.mqtt_listen.ip().to_string(), self.mqtt_listen.port()),
            BrokerKind::External { .. } => self.mqtt_address(),
        }
    }

    /// The names and addresses that the server certificate is for: its hosts, this machine, and what
    /// the listeners are bound to.
    pub fn server_names(&self) -> Vec<String> {
        let mut names = self.hosts.clone();
        let listeners = [self.admin_listen, self.device_listen, self.mqtt_listen];
        let bound = listeners.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        for name in local.into_iter().chain(bound.map(|ip| ip.to_string())) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The base URL of the admin listener, with the host that its certificate names.
    pub fn admin_url(&self) -> String {
        format!("https://{}:{}", self.host(), self.admin_listen.port())
    }

    /// The base URL of the device listener.
    pub fn device_url(&self) -> String {
        format!("https://{}:{}", self.host(), self.device_listen.port())
    }
}

/// The names in the form in which they are kept.
fn hosts(typed: &[String], problems: &mut Vec<String>) -> Vec<String> {
    if typed.is_empty() || typed.len() > HUB_HOSTS {
        problems.push(format!("hosts has {} names, 1 to {HUB_HOSTS} can be", typed.len()));
    }
    let mut kept = Vec::with_capacity(typed.len());
    for host in typed {
        match name::normal(host) {
            Ok(host) if kept.contains(&host) => problems.push(format!("hosts has {host:?} twice")),
            Ok(host) => kept.push(host),
            Err(why) => problems.push(format!("host {host:?} {why}")),
        }
    }
    kept
}

/// Why the hub's own client could not reach a broker that listens there.
fn unreachable(listen: SocketAddr) -> Option<String> {
    let ip = listen.ip();
    (ip.is_ipv6() && !ip.is_unspecified() && !ip.is_loopback()).then(|| {
        format!(
            "mqtt_listen = {:?} is one IPv6 address, which the MQTT client cannot use; listen on \
             [::]:{}",
            listen.to_string(),
            listen.port()
        )
    })
}

fn broker(text: &str) -> Result<BrokerKind, String> {
    if text == "embedded" {
        return Ok(BrokerKind::Embedded);
    }
    let problem = || format!("broker = {text:?} is neither \"embedded\" nor mqtts://host:port");
    let rest = text.strip_prefix("mqtts://").ok_or_else(problem)?;
    let (host, port) = rest.rsplit_once(':').ok_or_else(problem)?;
    let port = port.parse().map_err(|_| problem())?;
    if port == 0 {
        return Err(problem());
    }
    match name::normal(host) {
        Ok(host) => Ok(BrokerKind::External { host, port }),
        Err(why) => Err(format!("broker = {text:?}: the name {why}")),
    }
}

/// Where things lie within the data directory.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The data directory.
    pub data: PathBuf,
}

impl Paths {
    /// The paths of a data directory.
    pub fn new(data: &Path) -> Self {
        Self { data: data.to_owned() }
    }

    /// Certificates and keys: `ca.pem`, `ca.key` (and `ca-next` of both while the CA is rotated),
    /// `accepted-ca.pem`, `server.pem`, `server.key`, `hub-client.pem`,
    /// `hub-client.key`, `receipt.pk8`, `assignment.pk8`.
    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// Release metadata and the online keys of the channels.
    pub fn tuf(&self) -> PathBuf {
        self.data.join("tuf")
    }

    /// Payloads of samples.
    pub fn payloads(&self) -> PathBuf {
        self.data.join("payloads")
    }

    /// Payloads that came before their samples: nothing there has a receipt.
    pub fn uploads(&self) -> PathBuf {
        self.data.join("uploads")
    }

    /// Artefacts.
    pub fn artefacts(&self) -> PathBuf {
        self.data.join("artefacts")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "hosts = [\"localhost\"]\nadmin_listen = \"127.0.0.1:8443\"\n\
        device_listen = \"0.0.0.0:8444\"\nmqtt_listen = \"0.0.0.0:8883\"\n";

    #[test]
    fn what_init_writes_is_accepted_and_has_the_defaults() {
        let config = Config::parse(Path::new("/x"), GOOD).unwrap();
        assert_eq!(config.broker, BrokerKind::Embedded);
        assert_eq!(config.mqtt_address(), ("localhost".into(), 8883));
        assert_eq!(config.own_mqtt_address(), ("localhost".into(), 8883));
        assert_eq!(config.server_names(), ["localhost", "127.0.0.1", "::1"]);
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let text = format!("{GOOD}mqtt_lisen = \"x\"\n");
        assert!(matches!(Config::parse(Path::new("/x"), &text), Err(ConfigError::Parse { .. })));
    }

    #[test]
    fn all_problems_are_named_together() {
        let text = "hosts = [\"a b\"]\nadmin_listen = \"x\"\ndevice_listen = \"0.0.0.0:0\"\n\
            mqtt_listen = \"0.0.0.0:8883\"\nbroker = \"tcp://x\"\n[limits]\nbacklog_messages = 0\n";
        let Err(ConfigError::Invalid { problems, .. }) = Config::parse(Path::new("/x"), text)
        else {
            panic!("accepted");
        };
        assert_eq!(problems.len(), 5, "{problems:?}");
    }

    proptest! {
        /// Half of the texts are a good one with a piece replaced, so that they get past the parser.
        #[test]
        fn no_text_ends_the_process_and_what_is_accepted_can_be_used(
            text in prop_oneof!["\\PC{0,200}", (0..GOOD.len(), 0usize..20, "\\PC{0,20}").prop_map(
                |(at, len, piece)| {
                    let end = (at + len).min(GOOD.len());
                    format!("{}{piece}{}", &GOOD[..at], &GOOD[end..])
                }
            )],
        ) {
            match Config::parse(Path::new("/x"), &text) {
                Ok(config) => {
                    prop_assert!(config.hosts.iter().all(|host| name::normal(host).as_ref() == Ok(host)));
                    prop_assert!(config.limits.problems().is_empty());
                    prop_assert!(config.server_names().starts_with(&config.hosts));
                }
                Err(ConfigError::Invalid { problems, .. }) => prop_assert!(!problems.is_empty()),
                Err(error) => {
                    prop_assert!(matches!(error, ConfigError::Parse { .. }), "{error}");
                }
            }
        }
    }
}
