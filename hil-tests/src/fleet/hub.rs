//! A hub: `fleet-hub init`, `fleet-hub serve`, and what an admin asks of it, with `--json`.

use std::borrow::Borrow;
use std::cell::Cell;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fleetloop_protocol::SampleId;
use fleetloop_protocol::api::samples::{Sample, SampleCounts};
use serde::de::DeserializeOwned;

use crate::api::ApiClient;
use crate::rig::{Ended, Half, Launch, Process, Program, Rig, Signal, Volume, log_tail};
use crate::{files, wait};

/// How long a hub may take until it serves: certificates are made, a database is opened.
const READY: Duration = Duration::from_secs(60);

/// How long one admin command may take; the longest imports thousands of pictures.
const COMMAND: Duration = Duration::from_secs(180);

/// What [`Hub::eager`] lets it ask for, in seconds.
const RETRY_FULL_S: i64 = 2;

/// How many samples are listed at once.
const PAGE: usize = 500;

/// How long a hub may take to end when it is asked to.
const END: Duration = Duration::from_secs(30);

/// Where a hub lies and listens.
#[derive(Debug, Clone)]
pub struct HubPlace {
    /// The folder it makes for its data.
    pub data: PathBuf,
    /// The host in its certificate, and where devices and people reach it.
    pub host: String,
    /// The address of its three listeners.
    pub listen: IpAddr,
}

impl HubPlace {
    /// In the rig's folder, on loopback.
    pub fn loopback(rig: &dyn Rig) -> Self {
        let data = rig.folder().join("hub");
        Self { data, host: "localhost".to_owned(), listen: Ipv4Addr::LOCALHOST.into() }
    }
}

/// A hub and how it is reached.
pub struct Hub<'r> {
    rig: &'r dyn Rig,
    data: PathBuf,
    log_filter: Option<String>,
    half: Option<Half>,
    descriptors: Cell<Option<u64>>,
    process: Option<Process>,
    api: ApiClient,
}

impl<'r> Hub<'r> {
    /// Makes a hub with three listeners on loopback that knows `labels`, with its data in the
    /// rig's folder.
    ///
    /// # Errors
    /// When `fleet-hub init` fails.
    pub fn init(rig: &'r dyn Rig, labels: &[impl Borrow<str>]) -> Result<Self> {
        Self::init_in(rig, rig.folder().join("hub"), labels)
    }

    /// The same with its data in `data`.
    ///
    /// # Errors
    /// As [`Self::init`].
    pub fn init_in(rig: &'r dyn Rig, data: PathBuf, labels: &[impl Borrow<str>]) -> Result<Self> {
        Self::init_at(rig, &HubPlace { data, ..HubPlace::loopback(rig) }, labels)
    }

    /// The same at `place`.
    ///
    /// # Errors
    /// As [`Self::init`].
    pub fn init_at(
        rig: &'r dyn Rig,
        place: &HubPlace,
        labels: &[impl Borrow<str>],
    ) -> Result<Self> {
        let data = place.data.clone();
        let offline = rig.folder().join("offline-keys");
        let mut arguments: Vec<OsString> = vec!["init".into()];
        let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        add("--data", data.clone().into());
        add("--offline-keys", offline.into());
        add("--host", place.host.clone().into());
        add("--labels", labels.join(",").into());
        for listener in ["--admin-listen", "--device-listen", "--mqtt-listen"] {
            add(listener, SocketAddr::new(place.listen, rig.free_port()?).to_string().into());
        }
        rig.run(&Launch::new("hub-init", Program::Hub, arguments), COMMAND)?;
        let api = ApiClient::open(&data.join("admin.toml"))?;
        Ok(Self {
            rig,
            data,
            log_filter: None,
            half: None,
            descriptors: Cell::new(None),
            process: None,
            api,
        })
    }

    /// Logs as JSON what `filter`, in the form of RUST_LOG, lets pass; counts from its next start.
    pub fn set_log(&mut self, filter: &str) {
        self.log_filter = Some(filter.to_owned());
    }

    /// Gives it, and its admin commands, this half of the processors from the next start on.
    pub fn set_half(&mut self, half: Half) {
        self.half = Some(half);
    }

    /// Lets it have so many descriptors open and no more, from its next start on.
    pub fn set_descriptors(&self, most: u64) {
        self.descriptors.set(Some(most));
    }

    /// Its three listeners: admin, device, MQTT.
    ///
    /// # Errors
    /// When its configuration cannot be read.
    pub fn listeners(&self) -> Result<[SocketAddr; 3]> {
        let path = self.data.join("hub.toml");
        let cannot = || format!("cannot read {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(cannot)?;
        let file: toml::Table = text.parse().with_context(cannot)?;
        let read = |key: &str| {
            let text = file.get(key).and_then(toml::Value::as_str).with_context(cannot)?;
            text.parse().with_context(cannot)
        };
        Ok([read("admin_listen")?, read("device_listen")?, read("mqtt_listen")?])
    }

    /// Lets it ask devices back soon after its disk was full; before it starts.
    ///
    /// # Errors
    /// When its configuration cannot be changed.
    pub fn eager(&self) -> Result<()> {
        let path = self.data.join("hub.toml");
        let cannot = || format!("cannot change {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(cannot)?;
        let mut file: toml::Table = text.parse().with_context(cannot)?;
        let limits = file.get_mut("limits").and_then(toml::Value::as_table_mut);
        limits.with_context(cannot)?.insert("retry_full_s".to_owned(), RETRY_FULL_S.into());
        files::replace(&path, toml::to_string(&file).with_context(cannot)?.as_bytes())
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// When it ends or does not serve in time.
    pub fn start(&mut self) -> Result<()> {
        self.begin()?;
        self.until_ready()
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin(&mut self) -> Result<()> {
        let data = self.data.clone().into_os_string();
        let arguments = ["serve".into(), "--data".into(), data, "--no-worker".into()];
        let mut launch = Launch::new("hub", Program::Hub, arguments);
        if let Some(filter) = &self.log_filter {
            launch = launch.logging(filter);
        }
        launch.half = self.half;
        launch.descriptors = self.descriptors.get();
        self.process = Some(self.rig.start(&launch)?);
        Ok(())
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it was not started, ends or does not serve in time.
    pub fn until_ready(&self) -> Result<()> {
        let process = self.running()?;
        let ready = wait::until("the hub to serve", READY, Duration::from_millis(20), || {
            if self.rig.ended(process)?.is_some() {
                return Ok(Some(false));
            }
            self.is_ready().map(|ready| ready.then_some(true))
        });
        if !ready.with_context(|| log_tail(process))? {
            bail!("the hub ended instead of serving: {}", log_tail(process));
        }
        Ok(())
    }

    /// Whether it has said that it serves.
    ///
    /// # Errors
    /// When it was not started.
    pub fn is_ready(&self) -> Result<bool> {
        let printed = self.rig.printed(self.running()?)?;
        Ok(printed.lines().any(|line| line.starts_with("ready ")))
    }

    /// Its process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the hub does not run")
    }

    /// Asks it to end; [`Self::stopped`] waits for it.
    ///
    /// # Errors
    /// When it was not running.
    pub fn ask_to_stop(&self) -> Result<()> {
        self.rig.signal(self.running()?, Signal::Terminate)
    }

    /// Waits until it has ended as it was asked to.
    ///
    /// # Errors
    /// When it does not end in time or not as it should.
    pub fn stopped(&mut self) -> Result<()> {
        let process = self.taken()?;
        let ended = self.rig.wait(&process, END)?;
        if ended != Ended::Exited(0) {
            bail!("the hub ended with {ended:?}: {}", log_tail(&process));
        }
        Ok(())
    }

    /// Cuts its power: the volume with its data, and the process; how that ended.
    ///
    /// # Errors
    /// When it was not running, or the rig cannot do it.
    pub fn cut_power(&mut self, volume: &Volume) -> Result<Ended> {
        let process = self.taken()?;
        self.rig.cut_power(volume, &[&process])?;
        self.rig.wait(&process, END)
    }

    /// Kills it at once; its disk lives on.
    ///
    /// # Errors
    /// When it was not running.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.taken()?;
        self.rig.signal(&process, Signal::Kill)?;
        self.rig.wait(&process, END).map(drop)
    }

    fn taken(&mut self) -> Result<Process> {
        self.process.take().context("the hub does not run")
    }

    /// Stops it where it is, so that it accepts and reads nothing, or lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stall(&self, stalled: bool) -> Result<()> {
        self.rig.signal(self.running()?, if stalled { Signal::Stop } else { Signal::Continue })
    }

    /// Its access file for a role: `admin`, `annotator` or `worker`.
    pub fn access(&self, role: &str) -> PathBuf {
        self.data.join(format!("{role}.toml"))
    }

    /// Where it keeps its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its API, with the admin's token.
    pub fn api(&self) -> &ApiClient {
        &self.api
    }

    /// Every sample of a device that it lists, as often as it stands there. Devices may be sending
    /// meanwhile: those are listed that were there when it was asked.
    ///
    /// # Errors
    /// When it cannot be asked, or goes on counting otherwise than it lists.
    pub fn stored(&self) -> Result<Vec<SampleId>> {
        let what = "the hub to count as many samples as it lists";
        wait::until(what, COMMAND, Duration::from_millis(200), || self.listed())
    }

    /// What it lists; none when it counts otherwise.
    fn listed(&self) -> Result<Option<Vec<SampleId>>> {
        let count = || Ok::<_, anyhow::Error>(self.api.get::<SampleCounts>("sample-counts")?.fleet);
        let counted = count()?;
        let mut ids = Vec::new();
        let mut before = String::new();
        loop {
            let path = format!("samples?group=fleet&limit={PAGE}{before}");
            let page: Vec<Sample> = self.api.get(&path)?;
            let Some(last) = page.last() else { break };
            before = format!("&before={}", last.sample);
            for sample in page {
                ids.push(sample.id.context("a sample of the fleet has no identity")?);
            }
        }
        // None is ever unlisted, and one that comes while the pages are read stands before the first.
        let listed = ids.len() as u64;
        Ok((counted <= listed && listed <= count()?).then_some(ids))
    }

    /// Runs an admin command and reads the document it prints.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn admin<T, S>(&self, arguments: impl IntoIterator<Item = S>) -> Result<T>
    where
        T: DeserializeOwned,
        S: Into<OsString>,
    {
        let mut all: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        all.extend(["--access".into(), self.access("admin").into(), "--json".into()]);
        let mut launch = Launch::new("admin", Program::Hub, all);
        launch.half = self.half;
        let printed = self.rig.run(&launch, COMMAND)?;
        serde_json::from_str(&printed)
            .with_context(|| format!("cannot understand what an admin command printed: {printed}"))
    }
}
