//! A device: `edge-agent enroll`, `check` and `run`, with a configuration of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{AgentStatus, Assets};
use crate::api::Local;
use crate::rig::{Ended, Half, Launch, Network, Process, Program, Rig, Signal, Volume, log_tail};
use crate::{files, wait};

/// How long enrolling or checking may take.
const COMMAND: Duration = Duration::from_secs(60);

/// How often it is asked how it is.
const LOOK: Duration = Duration::from_millis(100);

/// How long an agent may take to drain and end when it is asked to.
const END: Duration = Duration::from_secs(60);

/// What a device sends: `[selection]` of `agent.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Selection {
    /// Normalised entropy from which a frame is worth sending.
    pub uncertainty_threshold: f32,
    /// Share of all frames that is sent whatever the model thinks.
    pub random_rate: f32,
    /// Bytes of payload that may be selected an hour.
    pub budget_bytes_per_hour: u64,
    /// Bytes that may be selected at once after a quiet time.
    pub burst_bytes: u64,
    /// Where the random draws start.
    pub seed: u64,
}

impl Selection {
    /// Every frame is signed and kept: the most that a device can do.
    pub const fn everything() -> Self {
        Self {
            uncertainty_threshold: 1.0,
            random_rate: 1.0,
            budget_bytes_per_hour: 1 << 40,
            burst_bytes: 1 << 40,
            seed: 7,
        }
    }

    /// The same, but next to nothing is chosen: for emptying an outbox.
    pub fn silent(self) -> Self {
        Self { uncertainty_threshold: 1.0, random_rate: 0.0, ..self }
    }
}

/// What `agent.toml` says that differs from its defaults.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentConfig {
    data_dir: PathBuf,
    source: Source,
    selection: Selection,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbox: Option<Outbox>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inference: Option<Inference>,
    http: Http,
    telemetry: Telemetry,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Source {
    kind: &'static str,
    images: PathBuf,
    rate_hz: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Inference {
    queue_frames: usize,
}

impl Inference {
    /// Room for four seconds of frames: on a machine that also trains, a process may not be
    /// scheduled for a while, and every frame shall be answered all the same.
    fn at(rate_hz: f64) -> Self {
        Self { queue_frames: (4.0 * rate_hz).clamp(256.0, 65_536.0) as usize }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Http {
    listen: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Telemetry {
    every_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Outbox {
    max_bytes: u64,
    max_rows: u64,
}

/// An agent's last words, on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Stopped {
    /// Frames that arrived since this start.
    pub frames_in: u64,
    /// Frames that were answered since this start.
    pub frames_answered: u64,
    /// Frames that were dropped since this start.
    pub frames_dropped: u64,
    /// Frames that a model took and did not answer.
    pub frames_failed: u64,
    /// Samples signed since the device enrolled; survives every restart.
    pub samples_signed_total: u64,
    /// Samples receipted since the device enrolled; survives every restart.
    pub samples_receipted_total: u64,
    /// Samples that wait in the outbox.
    pub samples_waiting: u64,
    /// The most memory this start ever held resident.
    pub peak_rss_bytes: u64,
}

/// A frame that was answered, as `/results/latest` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Answered {
    /// Its number since the agent started.
    pub frame: u64,
    /// When it was taken, in milliseconds since 1970.
    #[serde(rename = "captured_at")]
    pub captured_at_ms: u64,
    /// From the moment it was due to the answer, in microseconds.
    pub latency_us: u64,
}

impl Answered {
    /// How many the agent keeps.
    pub const KEPT: usize = 256;
}

/// What `edge-agent check --json` measured.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Capacity {
    /// Frames a second through the whole path, one after another.
    #[serde(rename = "capacity_frames_per_s")]
    pub frames_per_second: f64,
}

/// A device.
pub struct Agent<'r> {
    rig: &'r dyn Rig,
    name: String,
    assets: Assets,
    config: AgentConfig,
    log_filter: Option<String>,
    boot: Option<u32>,
    network: Option<Network>,
    half: Option<Half>,
    process: Option<Process>,
}

impl<'r> Agent<'r> {
    /// A device that looks at an IDX file of its own at `rate_hz`; it is not enrolled yet.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn new(
        rig: &'r dyn Rig,
        name: &str,
        assets: &Assets,
        selection: Selection,
        rate_hz: f64,
    ) -> Result<Self> {
        let folder = rig.folder().join(name);
        files::folder(&folder)?;
        let config = AgentConfig {
            data_dir: folder.join("data"),
            source: Source { kind: "idx", images: folder.join("images.idx"), rate_hz },
            selection,
            outbox: None,
            inference: Some(Inference::at(rate_hz)),
            http: Http { listen: format!("127.0.0.1:{}", rig.free_port()?) },
            telemetry: Telemetry { every_s: 5 },
        };
        let (name, assets) = (name.to_owned(), assets.clone());
        let agent = Self {
            rig,
            name,
            assets,
            config,
            log_filter: None,
            boot: None,
            network: None,
            half: None,
            process: None,
        };
        agent.write_config()?;
        Ok(agent)
    }

    /// Keeps its data here instead of beside its configuration; said before it enrols.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn set_data(&mut self, folder: PathBuf) -> Result<()> {
        self.config.data_dir = folder;
        self.write_config()
    }

    /// Gives its next starts a boot of their own: the machine's stays the same when only a volume's
    /// power is cut.
    pub fn set_boot(&mut self, boot: u32) {
        self.boot = Some(boot);
    }

    /// Logs as JSON what `filter`, in the form of RUST_LOG, lets pass; counts from its next start.
    pub fn set_log(&mut self, filter: &str) {
        self.log_filter = Some(filter.to_owned());
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file it looks at; replacing it changes its world.
    pub fn images(&self) -> PathBuf {
        self.config.source.images.clone()
    }

    /// Changes how many frames arrive; counts from its next start.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn set_rate(&mut self, rate_hz: f64) -> Result<()> {
        self.config.source.rate_hz = rate_hz;
        self.config.inference = Some(Inference::at(rate_hz));
        self.write_config()
    }

    /// Changes what it sends; counts from its next start.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn set_selection(&mut self, selection: Selection) -> Result<()> {
        self.config.selection = selection;
        self.write_config()
    }

    /// Changes how much its outbox holds; counts from its next start.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn set_outbox(&mut self, max_bytes: u64, max_rows: u64) -> Result<()> {
        self.config.outbox = Some(Outbox { max_bytes, max_rows });
        self.write_config()
    }

    /// Lets as many frames wait for the model as the product does by default; counts from its next
    /// start.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn set_queue_to_default(&mut self) -> Result<()> {
        self.config.inference = None;
        self.write_config()
    }

    /// Where it keeps its data.
    pub fn data(&self) -> &Path {
        &self.config.data_dir
    }

    /// Reaches its hub by `network` from its next start on.
    pub fn set_network(&mut self, network: &Network) {
        self.network = Some(network.clone());
    }

    /// Gives all its processes this half of the processors from their next start on.
    pub fn set_half(&mut self, half: Half) {
        self.half = Some(half);
    }

    fn config_path(&self) -> PathBuf {
        self.rig.folder().join(&self.name).join("agent.toml")
    }

    fn write_config(&self) -> Result<()> {
        let text = toml::to_string(&self.config).context("cannot write agent.toml")?;
        files::replace(&self.config_path(), text.as_bytes())
    }

    fn launch(&self, name: &str, arguments: Vec<OsString>) -> Launch {
        let mut launch = Launch::new(name, Program::Agent, arguments)
            .env("FLEETLOOP_ORT_LIB", &self.assets.onnxruntime);
        launch.network.clone_from(&self.network);
        launch.half = self.half;
        launch
    }

    /// Enrols it with a token.
    ///
    /// # Errors
    /// When the hub does not take it.
    pub fn enrol(&self, token: &str) -> Result<()> {
        let data = self.config.data_dir.clone().into_os_string();
        let arguments =
            vec!["enroll".into(), "--token".into(), token.into(), "--data".into(), data];
        self.rig.run(&self.launch(&format!("{}-enroll", self.name), arguments), COMMAND).map(drop)
    }

    /// Starts measuring what it can do; [`Self::capacity`] reads the result.
    ///
    /// # Errors
    /// When the check cannot be started.
    pub fn start_check(&self) -> Result<Process> {
        let config = self.config_path().into_os_string();
        let arguments = vec!["check".into(), "--config".into(), config, "--json".into()];
        self.rig.start(&self.launch(&format!("{}-check", self.name), arguments))
    }

    /// Waits for a check and reads what it measured.
    ///
    /// # Errors
    /// When the check fails: library, model, golden cases or source are not as they should be.
    pub fn capacity(&self, check: &Process) -> Result<Capacity> {
        let ended = self.rig.wait(check, COMMAND)?;
        let printed = self.rig.printed(check)?;
        if ended != Ended::Exited(0) {
            bail!("the check of {} failed ({ended:?}): {printed}{}", self.name, log_tail(check));
        }
        serde_json::from_str(&printed)
            .with_context(|| format!("cannot understand the check of {}: {printed}", self.name))
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let config = self.config_path().into_os_string();
        let mut launch = self.launch(&self.name, vec!["run".into(), "--config".into(), config]);
        if let Some(filter) = &self.log_filter {
            launch = launch.logging(filter);
        }
        if let Some(boot) = self.boot {
            launch = launch.env("FLEETLOOP_BOOT_ID", boot.to_string());
        }
        self.process = Some(self.rig.start(&launch)?);
        Ok(())
    }

    /// Its process, while it should run.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, client: &Local) -> Result<AgentStatus> {
        client.get(&format!("http://{}/status", self.config.http.listen))
    }

    /// Where its local HTTP port answers with its last results, all of which it keeps.
    pub fn latest_url(&self) -> String {
        format!("http://{}/results/latest?n={}", self.config.http.listen, Answered::KEPT)
    }

    /// What `edge-agent status` says, which reaches it wherever it runs; of its files when it does
    /// not run.
    ///
    /// # Errors
    /// When the command fails.
    pub fn told(&self) -> Result<AgentStatus> {
        let config = self.config_path().into_os_string();
        let arguments = vec!["status".into(), "--config".into(), config, "--json".into()];
        let launch = self.launch(&format!("{}-status", self.name), arguments);
        let printed = self.rig.run(&launch, COMMAND)?;
        serde_json::from_str(&printed)
            .with_context(|| format!("cannot understand the status of {}: {printed}", self.name))
    }

    /// Waits until what it is told is as `wanted` says; `what` tells for what.
    ///
    /// # Errors
    /// When it does not become so within `limit`, or the agent ends.
    pub fn becomes(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&AgentStatus) -> bool,
    ) -> Result<AgentStatus> {
        let what = format!("{} to {what}", self.name);
        let found = wait::until(&what, limit, LOOK, || {
            self.must_run()?;
            Ok(Some(self.told()?).filter(&wanted))
        });
        self.must_run()?;
        found
    }

    /// Fails when it should run and does not.
    ///
    /// # Errors
    /// When it has ended by itself; the text holds the end of its log.
    pub fn must_run(&self) -> Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        match self.rig.ended(process)? {
            None => Ok(()),
            Some(ended) => bail!("{} ended ({ended:?}): {}", self.name, log_tail(process)),
        }
    }

    /// Asks it to end; [`Self::stopped`] reads its last words.
    ///
    /// # Errors
    /// When it does not run.
    pub fn ask_to_stop(&self) -> Result<()> {
        let process = self.process.as_ref().context("cannot stop an agent that does not run")?;
        self.rig.signal(process, Signal::Terminate)
    }

    /// Waits until it has ended and reads its last words.
    ///
    /// # Errors
    /// When it does not end in time or not as it should.
    pub fn stopped(&mut self) -> Result<Stopped> {
        let process = self.process.take().context("cannot stop an agent that does not run")?;
        let ended = self.rig.wait(&process, END)?;
        let printed = self.rig.printed(&process)?;
        if ended != Ended::Exited(0) {
            bail!("{} ended with {ended:?}: {}", self.name, log_tail(&process));
        }
        let last = printed.lines().rev().find(|line| line.contains(r#""event":"stopped""#));
        let last = last.with_context(|| format!("{} ended without last words", self.name))?;
        serde_json::from_str(last)
            .with_context(|| format!("cannot understand the last words of {}: {last}", self.name))
    }

    /// Ends it in order and reads its last words. An agent that is killed again and again would blame
    /// its model.
    ///
    /// # Errors
    /// When it does not run, or does not end in time or as it should.
    pub fn stop(&mut self) -> Result<Stopped> {
        self.ask_to_stop()?;
        self.stopped()
    }

    /// Cuts its power: the volume with its data, and the process; how that ended.
    ///
    /// # Errors
    /// When it does not run, or the rig cannot do it.
    pub fn cut_power(&mut self, volume: &Volume) -> Result<Ended> {
        let process = self.process.take().context("cannot cut off an agent that does not run")?;
        self.rig.cut_power(volume, &[&process])?;
        self.rig.wait(&process, END)
    }

    /// Kills it at once; its disk lives on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("cannot kill an agent that does not run")?;
        self.rig.signal(&process, Signal::Kill)?;
        self.rig.wait(&process, END).map(drop)
    }
}
