//! `agent.toml`: parsed once into a validated [`Config`], or for its [`Place`] alone.
//!
//! Unknown keys are errors and all errors are reported together. Paths are relative to the file
//! that names them. Every limit has a default and a unit in its name; `agent.example.toml` beside
//! this crate shows them all and is tested against the defaults.

mod place;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetloop_protocol::Digest;
use fleetloop_protocol::limits::SOURCE_RATE_HZ;
use serde::Deserialize;

pub use place::Place;

/// The largest configuration that is read, in bytes.
const CONFIG_BYTES: u64 = 64 * 1024;

/// How long a frame may wait for the model where the file does not say how many may.
const QUEUE: Duration = Duration::from_secs(2);

/// Frames that may wait, at whatever rate they come.
const QUEUE_AT_LEAST: usize = 32;

/// The most frames that may wait.
const QUEUE_AT_MOST: usize = 65_536;

/// The agent's configuration, valid as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where identity, outbox, bundles and state lie.
    pub data_dir: PathBuf,
    /// Where frames come from.
    pub source: SourceConfig,
    /// What is worth sending home.
    pub selection: SelectionConfig,
    /// The bounds of the outbox.
    pub outbox: OutboxConfig,
    /// How the model runs.
    pub inference: InferenceConfig,
    /// The limits of the child in which a new model is tried.
    pub proof: ProofConfig,
    /// The local HTTP port.
    pub http: HttpConfig,
    /// Results to MQTT.
    pub results: ResultsConfig,
    /// Counters to the hub.
    pub telemetry: TelemetryConfig,
    /// SHA-256 of the file as read: what sample headers name.
    pub digest: Digest,
}

/// `[source]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceConfig {
    /// Replays an IDX picture file in a loop.
    Idx(IdxConfig),
}

impl SourceConfig {
    /// Frames a second.
    pub const fn rate_hz(&self) -> f64 {
        match self {
            Self::Idx(idx) => idx.rate_hz,
        }
    }

    /// Whether the same frames come in the same order, at whatever rate.
    pub fn same_frames(&self, other: &Self) -> bool {
        let (Self::Idx(one), Self::Idx(other)) = (self, other);
        (&one.images, one.start, one.count) == (&other.images, other.start, other.count)
    }
}

/// `[source]` of kind `idx`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdxConfig {
    /// The file, plain IDX (not gzipped). It may be replaced by a rename while the agent runs.
    pub images: PathBuf,
    /// Frames a second, open loop.
    pub rate_hz: f64,
    /// The first picture of the file that is used.
    #[serde(default)]
    pub start: usize,
    /// How many pictures are used; all from `start` when absent.
    pub count: Option<usize>,
}

/// `[selection]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionConfig {
    /// Normalised entropy (0 to 1) from which a frame is worth sending.
    pub uncertainty_threshold: f32,
    /// Share of all frames that is sent whatever the model thinks.
    pub random_rate: f32,
    /// Bytes of payload that may be selected an hour.
    pub budget_bytes_per_hour: u64,
    /// Bytes that may be selected at once after a quiet time.
    pub burst_bytes: u64,
    /// Where the random draws start; drawn by the system when absent.
    pub seed: Option<u64>,
}

impl Default for SelectionConfig {
    fn default() -> Self {
        Self {
            uncertainty_threshold: 0.5,
            random_rate: 0.005,
            budget_bytes_per_hour: 4 * 1024 * 1024,
            burst_bytes: 1024 * 1024,
            seed: None,
        }
    }
}

/// `[outbox]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxConfig {
    /// Bytes of messages that may wait.
    pub max_bytes: u64,
    /// Samples that may wait.
    pub max_rows: u64,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { max_bytes: 256 * 1024 * 1024, max_rows: 100_000 }
    }
}

/// `[inference]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InferenceConfig {
    /// Threads one inference may use.
    pub threads: u16,
    /// ONNX Runtime's library; searched for when absent.
    pub library: Option<PathBuf>,
    /// Frames that may wait for the model; [`Config::queue_frames`] says how many when absent.
    pub queue_frames: Option<usize>,
    /// Seconds that the model may take for a frame; then the run is ended and the frame has failed.
    pub run_limit_s: u32,
}

impl InferenceConfig {
    /// How long the model may take for a frame.
    pub const fn run_limit(&self) -> Duration {
        Duration::from_secs(self.run_limit_s as u64)
    }
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self { threads: 1, library: None, queue_frames: None, run_limit_s: 30 }
    }
}

/// `[proof]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProofConfig {
    /// Seconds that trying a new model may take.
    pub wall_s: u32,
    /// Seconds of processor time that it may use.
    pub cpu_s: u32,
    /// MiB of memory that it may write to.
    pub memory_mb: u32,
    /// MiB of the largest file that it may write: the optimised graph.
    pub file_mb: u32,
}

impl Default for ProofConfig {
    fn default() -> Self {
        Self { wall_s: 600, cpu_s: 120, memory_mb: 1024, file_mb: 512 }
    }
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where `/status`, `/metrics`, `/healthz` and `/results/latest` are served.
    pub listen: SocketAddr,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8470)) }
    }
}

/// `[results]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResultsConfig {
    /// Results published to MQTT a second at most; 0 publishes none.
    pub mqtt_per_second: u32,
}

impl Default for ResultsConfig {
    fn default() -> Self {
        Self { mqtt_per_second: 10 }
    }
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Seconds between two reports; drift is told from the last 60 of them that saw a frame.
    pub every_s: u32,
    /// The base address of an OTLP collector (HTTP, protobuf); no spans are made when absent.
    pub otlp: Option<String>,
}

impl TelemetryConfig {
    /// The time between two reports.
    pub const fn every(&self) -> Duration {
        Duration::from_secs(self.every_s as u64)
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { every_s: 60, otlp: None }
    }
}

/// The file as it parses, before it is checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: PathBuf,
    source: SourceConfig,
    #[serde(default)]
    selection: SelectionConfig,
    #[serde(default)]
    outbox: OutboxConfig,
    #[serde(default)]
    inference: InferenceConfig,
    #[serde(default)]
    proof: ProofConfig,
    #[serde(default)]
    http: HttpConfig,
    #[serde(default)]
    results: ResultsConfig,
    #[serde(default)]
    telemetry: TelemetryConfig,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read configuration {}; pass its path with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than any sensible configuration.
    #[error("cannot read configuration {}: more than {CONFIG_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is read and wrong.
    #[error("cannot use configuration {}: {problems}; agent.example.toml shows every key", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, all of it.
        problems: Problems,
    },
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, base(path))
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Checks the text of a configuration whose paths are relative to `base`.
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn parse(text: &str, base: &Path) -> Result<Self, Problems> {
        let table: toml::Table =
            toml::from_str(text).map_err(|error| Problems(vec![one_line(&error)]))?;
        let mut problems = unknown_keys(&table);
        let file = match File::deserialize(toml::Value::Table(known_only(table))) {
            Ok(file) => Some(file),
            Err(error) => {
                problems.push(one_line(&error));
                None
            }
        };
        if let Some(file) = &file {
            problems.extend(check(file));
        }
        match file {
            Some(file) if problems.is_empty() => Ok(Self::from_file(file, text, base)),
            _ => Err(Problems(problems)),
        }
    }

    /// Frames that may wait for the model; one more drops the oldest. Unless the file says so, as many
    /// as come in two seconds, for a queue bounds how late an answer is, and 32 at least.
    pub fn queue_frames(&self) -> usize {
        let in_time = (self.source.rate_hz() * QUEUE.as_secs_f64()).ceil() as usize;
        let usual = in_time.clamp(QUEUE_AT_LEAST, QUEUE_AT_MOST);
        self.inference.queue_frames.unwrap_or(usual)
    }

    fn from_file(file: File, text: &str, base: &Path) -> Self {
        let SourceConfig::Idx(mut idx) = file.source;
        idx.images = base.join(idx.images);
        let mut inference = file.inference;
        inference.library = inference.library.map(|library| base.join(library));
        Self {
            data_dir: base.join(file.data_dir),
            source: SourceConfig::Idx(idx),
            selection: file.selection,
            outbox: file.outbox,
            inference,
            proof: file.proof,
            http: file.http,
            results: file.results,
            telemetry: file.telemetry,
            digest: Digest::of(text.as_bytes()),
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read as _;
    let error = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(error)?;
    file.take(CONFIG_BYTES + 1).read_to_string(&mut text).map_err(error)?;
    if text.len() as u64 > CONFIG_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// What the paths in the file at `path` are relative to.
fn base(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Every table and its keys, so that unknown ones are found all at once; `serde` stops at the
/// first. A test compares this list with the structs.
const KEYS: [(&str, &[&str]); 9] = [
    ("", &["data_dir"]),
    ("source", &["kind", "images", "rate_hz", "start", "count"]),
    (
        "selection",
        &["uncertainty_threshold", "random_rate", "budget_bytes_per_hour", "burst_bytes", "seed"],
    ),
    ("outbox", &["max_bytes", "max_rows"]),
    ("inference", &["threads", "library", "queue_frames", "run_limit_s"]),
    ("proof", &["wall_s", "cpu_s", "memory_mb", "file_mb"]),
    ("http", &["listen"]),
    ("results", &["mqtt_per_second"]),
    ("telemetry", &["every_s", "otlp"]),
];

fn keys_of(table: &str) -> Option<&'static [&'static str]> {
    KEYS.iter().find(|(name, _)| *name == table).map(|(_, keys)| *keys)
}

fn unknown_keys(table: &toml::Table) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, value) in table {
        match (keys_of(name).filter(|_| !name.is_empty()), value) {
            (Some(keys), toml::Value::Table(inner)) => unknown.extend(
                inner
                    .keys()
                    .filter(|key| !keys.contains(&key.as_str()))
                    .map(|key| format!("unknown key {name}.{key}")),
            ),
            (Some(_), _) => unknown.push(format!("{name} must be a table, [{name}]")),
            (None, _) if keys_of("").is_some_and(|top| top.contains(&name.as_str())) => {}
            (None, _) => unknown.push(format!("unknown key {name}")),
        }
    }
    unknown
}

/// The table without what [`unknown_keys`] reports, so that `serde` can report something else.
fn known_only(mut table: toml::Table) -> toml::Table {
    table.retain(|name, value| match keys_of(name) {
        Some(keys) => {
            if let toml::Value::Table(inner) = value {
                inner.retain(|key, _| keys.contains(&key));
            }
            value.is_table()
        }
        None => keys_of("").is_some_and(|top| top.contains(&name)),
    });
    table
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn check(file: &File) -> Vec<String> {
    let SourceConfig::Idx(idx) = &file.source;
    let selection = &file.selection;
    let share = |value: f32| (0.0..=1.0).contains(&value);
    let rules = [
        (!file.data_dir.as_os_str().is_empty(), "data_dir must not be empty"),
        (
            (0.000_001..=f64::from(SOURCE_RATE_HZ)).contains(&idx.rate_hz),
            "source.rate_hz must be between 0.000001 and 100000",
        ),
        (idx.count != Some(0), "source.count must be at least 1"),
        (
            share(selection.uncertainty_threshold),
            "selection.uncertainty_threshold must be between 0 and 1",
        ),
        (share(selection.random_rate), "selection.random_rate must be between 0 and 1"),
        (
            selection.budget_bytes_per_hour <= 1 << 40,
            "selection.budget_bytes_per_hour must be at most 2^40",
        ),
        (
            (1..=1 << 40).contains(&selection.burst_bytes),
            "selection.burst_bytes must be between 1 and 2^40",
        ),
        (
            (1 << 20..=1 << 40).contains(&file.outbox.max_bytes),
            "outbox.max_bytes must be between 2^20 and 2^40",
        ),
        (
            (1..=100_000_000).contains(&file.outbox.max_rows),
            "outbox.max_rows must be between 1 and 100000000",
        ),
        (
            (1..=256).contains(&file.inference.threads),
            "inference.threads must be between 1 and 256",
        ),
        (
            file.inference.queue_frames.is_none_or(|n| (1..=QUEUE_AT_MOST).contains(&n)),
            "inference.queue_frames must be between 1 and 65536",
        ),
        (
            (1..=3600).contains(&file.inference.run_limit_s),
            "inference.run_limit_s must be between 1 and 3600",
        ),
        ((1..=86_400).contains(&file.proof.wall_s), "proof.wall_s must be between 1 and 86400"),
        ((1..=86_400).contains(&file.proof.cpu_s), "proof.cpu_s must be between 1 and 86400"),
        (
            (64..=1 << 20).contains(&file.proof.memory_mb),
            "proof.memory_mb must be between 64 and 1048576",
        ),
        ((1..=4096).contains(&file.proof.file_mb), "proof.file_mb must be between 1 and 4096"),
        (
            file.http.listen.ip().is_loopback(),
            "http.listen must be a loopback address: it has no login",
        ),
        (file.results.mqtt_per_second <= 10_000, "results.mqtt_per_second must be at most 10000"),
        (
            (1..=86_400).contains(&file.telemetry.every_s),
            "telemetry.every_s must be between 1 and 86400",
        ),
        (
            file.telemetry.otlp.as_deref().is_none_or(is_http),
            "telemetry.otlp must be an http:// or https:// address",
        ),
    ];
    rules.into_iter().filter(|(holds, _)| !holds).map(|(_, text)| text.to_owned()).collect()
}

fn is_http(address: &str) -> bool {
    url::Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../agent.example.toml");
    const LEAST: &str = "data_dir = 'd'\n[source]\nkind = 'idx'\nimages = 'i'\nrate_hz = 1\n";

    #[test]
    fn the_shipped_example_parses_and_shows_every_default() {
        let example = Config::parse(EXAMPLE, Path::new("/etc/fleetloop")).unwrap();
        let least = Config::parse(LEAST, Path::new("")).unwrap();
        assert_eq!(example.selection, least.selection);
        assert_eq!(example.outbox, least.outbox);
        assert_eq!(example.inference, least.inference);
        assert_eq!(example.proof, least.proof);
        assert_eq!(example.http, least.http);
        assert_eq!(example.results, least.results);
        assert_eq!(example.telemetry, least.telemetry);
        for (table, keys) in KEYS {
            for key in keys {
                assert!(EXAMPLE.contains(&format!("{key} =")), "{table}.{key} is not shown");
            }
        }
    }

    #[test]
    fn paths_are_relative_to_the_file_that_names_them() {
        let config = Config::parse(LEAST, Path::new("/etc/fleetloop")).unwrap();
        assert_eq!(config.data_dir, Path::new("/etc/fleetloop/d"));
        let SourceConfig::Idx(idx) = config.source;
        assert_eq!(idx.images, Path::new("/etc/fleetloop/i"));
    }

    #[test]
    fn all_errors_are_reported_together() {
        let text = "data_dir = 'd'\ncolour = 1\n[source]\nkind = 'idx'\nimages = 'i'\nrate_hz = 0\nspeed = 2\n\
                    [http]\nlisten = '0.0.0.0:80'\n[outbox]\nmax_rows = 0\n\
                    [telemetry]\notlp = 'collector:4318'\n";
        let problems = Config::parse(text, Path::new("")).unwrap_err().to_string();
        for part in [
            "colour",
            "source.speed",
            "rate_hz",
            "http.listen",
            "outbox.max_rows",
            "telemetry.otlp",
        ] {
            assert!(problems.contains(part), "{part} is missing in: {problems}");
        }
    }

    #[test]
    fn every_key_in_the_list_is_known_to_the_structs() {
        // One unknown key a table: were a struct to lack a listed key, the example would fail; were
        // the list to lack a struct's key, its use would be reported as unknown.
        for (table, _) in KEYS.iter().skip(2) {
            let text = format!("{LEAST}[{table}]\nno_such_key = 1\n");
            let problems = Config::parse(&text, Path::new("")).unwrap_err();
            assert_eq!(problems.to_string(), format!("unknown key {table}.no_such_key"));
        }
    }

    #[test]
    fn a_missing_table_a_wrong_type_and_bad_toml_are_errors() {
        for text in ["", "data_dir = 'd'", "source = 1\ndata_dir = 'd'", "data_dir = ["] {
            assert!(Config::parse(text, Path::new("")).is_err(), "{text}");
        }
        let wrong = format!("{LEAST}[telemetry]\nevery_s = 'often'\n");
        assert!(Config::parse(&wrong, Path::new("")).is_err());
    }

    #[test]
    fn as_many_frames_may_wait_as_come_in_two_seconds_unless_the_file_says_otherwise() {
        let at = |rate: &str, more: &str| {
            let text = format!("{}{more}", LEAST.replace("rate_hz = 1", rate));
            Config::parse(&text, Path::new("")).unwrap().queue_frames()
        };
        assert_eq!(at("rate_hz = 880.2", ""), 1761);
        assert_eq!(at("rate_hz = 0.001", ""), 32);
        assert_eq!(at("rate_hz = 100000", ""), 65_536);
        assert_eq!(at("rate_hz = 880.2", "[inference]\nqueue_frames = 1\n"), 1);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("/no/such/agent.toml")).unwrap_err();
        assert!(error.to_string().contains("/no/such/agent.toml"));
    }
}
