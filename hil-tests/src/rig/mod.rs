//! Where the product's processes run, so that one scenario serves several places.
//!
//! A rig starts processes, signals them, tells how they ended and what they printed, and leaves
//! none behind; it has volumes, whose power it can cut. A scenario asks for nothing else, so that a
//! virtual board or a real one over ssh can stand in for [`ThisMachine`] later. What a rig may be
//! unable to do is an [`Ability`]; a scenario that needs it is skipped there, and the reason told.
//!
//! Invariants: every process has its own process group; its standard output and its log go to
//! files of the rig's folder, which no power cut reaches, a new pair at every start;
//! [`Rig::stop_all`] ends what runs and refuses what would be started after it.

mod halves;
pub mod leash;
mod network;
mod system;
mod this_machine;
mod tool;
mod volumes;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

pub use halves::Apart;
pub use this_machine::ThisMachine;

/// A program of the product, or one that belongs to the scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// `fleet-hub`.
    Hub,
    /// `edge-agent`.
    Agent,
    /// `trainer`.
    Trainer,
    /// `fleetloop-demo`, which is also the annotator.
    Demo,
}

impl Program {
    /// The file's name.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Hub => "fleet-hub",
            Self::Agent => "edge-agent",
            Self::Trainer => "trainer",
            Self::Demo => "fleetloop-demo",
        }
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What the process is called in file names and messages: `hub`, `agent-1`.
    pub name: String,
    /// The program.
    pub program: Program,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Added to its environment.
    pub environment: Vec<(String, OsString)>,
    /// The network it sees, when it is not the rig's own.
    pub network: Option<Network>,
    /// The half of the processors that it has, when it is not all of them.
    pub half: Option<Half>,
    /// How many descriptors it may have open, when that is not what this process may.
    pub descriptors: Option<u64>,
}

/// One half of a machine's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// A device's own.
    Device,
    /// That of all which would be elsewhere.
    Others,
}

impl Launch {
    /// `program` with these arguments and our environment.
    pub fn new<S: Into<OsString>>(
        name: &str,
        program: Program,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self {
            name: name.to_owned(),
            program,
            arguments,
            environment: Vec::new(),
            network: None,
            half: None,
            descriptors: None,
        }
    }

    /// The same, logging as JSON what `filter`, in the form of RUST_LOG, lets pass.
    pub fn logging(mut self, filter: &str) -> Self {
        self.arguments.extend(["--log".into(), "json".into()]);
        self.env("RUST_LOG", filter)
    }

    /// The same with one more variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

/// A process that a rig started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// Its number on the rig.
    pub id: u32,
    /// What it prints.
    pub output: PathBuf,
    /// What it logs.
    pub log: PathBuf,
}

/// What can be said to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End now and orderly: SIGTERM.
    Terminate,
    /// End, unasked: SIGKILL.
    Kill,
    /// Stand still: SIGSTOP.
    Stop,
    /// Go on: SIGCONT.
    Continue,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// What not every rig can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Has volumes whose power can be cut.
    PowerCut,
    /// Has networks whose link can be broken.
    BrokenLink,
    /// Gives a device processors of its own.
    Halves,
}

/// A file system of its own, on which the data of a device or of the hub lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where it lies, for processes of the rig.
    pub folder: PathBuf,
}

/// A network of its own, by which devices reach the rig, where the hub runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The process that holds it.
    pub id: u32,
    /// The rig's address in it.
    pub rig: IpAddr,
}

/// What becomes of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// As it should be.
    Up,
    /// Nothing passes.
    Down,
    /// 256 kbit/s.
    Slow,
    /// A fifth of the packets is lost, each way.
    Lossy,
}

/// A place where the product's processes run.
pub trait Rig: Send + Sync {
    /// The folder for everything a run leaves; scenarios put their files here.
    fn folder(&self) -> &Path;

    /// A TCP port on loopback that nobody uses.
    ///
    /// # Errors
    /// When none can be found.
    fn free_port(&self) -> Result<u16>;

    /// Starts a process.
    ///
    /// # Errors
    /// When it cannot be started, or the rig was stopped.
    fn start(&self, launch: &Launch) -> Result<Process>;

    /// Sends a signal to a process and everything it started; nothing to one that has ended.
    ///
    /// # Errors
    /// When the rig cannot be reached.
    fn signal(&self, process: &Process, signal: Signal) -> Result<()>;

    /// How a process ended; none while it runs.
    ///
    /// # Errors
    /// When the rig does not know it.
    fn ended(&self, process: &Process) -> Result<Option<Ended>>;

    /// What a process has printed so far.
    ///
    /// # Errors
    /// When its file cannot be read.
    fn printed(&self, process: &Process) -> Result<String>;

    /// Why this rig does not have an ability; none when it does, or should.
    fn lacks(&self, ability: Ability) -> Option<String>;

    /// An empty volume.
    ///
    /// # Errors
    /// When it cannot be made.
    fn volume(&self, name: &str) -> Result<Volume>;

    /// Cuts the power of a volume and of the processes that work on it, the volume first: what was
    /// not on its disk by then is lost. They have ended when this returns.
    ///
    /// # Errors
    /// When the rig cannot do it.
    fn cut_power(&self, volume: &Volume, processes: &[&Process]) -> Result<()>;

    /// Gives a volume its power back, with what its disk holds.
    ///
    /// # Errors
    /// When the file system does not come back.
    fn restore(&self, volume: &Volume) -> Result<()>;

    /// Takes all room on a volume.
    ///
    /// # Errors
    /// When the rig cannot do it.
    fn fill(&self, volume: &Volume) -> Result<()>;

    /// Gives the room on a volume back.
    ///
    /// # Errors
    /// When the rig cannot do it.
    fn make_room(&self, volume: &Volume) -> Result<()>;

    /// A network with a link that is up.
    ///
    /// # Errors
    /// When it cannot be made.
    fn network(&self) -> Result<Network>;

    /// Does something to a network's link.
    ///
    /// # Errors
    /// When the rig cannot do it.
    fn set_link(&self, network: &Network, state: LinkState) -> Result<()>;

    /// The memory that a process holds now, in bytes.
    ///
    /// # Errors
    /// When the process has ended or the rig cannot tell.
    fn resident_bytes(&self, process: &Process) -> Result<u64>;

    /// The descriptors (files and connections) that a process has open.
    ///
    /// # Errors
    /// When the process has ended or the rig cannot tell.
    fn open_descriptors(&self, process: &Process) -> Result<u64>;

    /// Lets a running process have `more_bytes` of address space beyond what it has, and no more.
    ///
    /// # Errors
    /// When the process has ended or the rig cannot do it.
    fn limit_memory(&self, process: &Process, more_bytes: u64) -> Result<()>;

    /// The calling thread, and those that it starts, keep off a device's half of the processors until
    /// the value is dropped.
    ///
    /// # Errors
    /// When the rig cannot do it.
    fn apart(&self) -> Result<Apart>;

    /// Ends every process: asks first, then forces those that are left after `grace`. Volumes go
    /// with them.
    fn stop_all(&self, grace: Duration);

    /// Waits until a process ends by itself.
    ///
    /// # Errors
    /// When it does not within `limit`.
    fn wait(&self, process: &Process, limit: Duration) -> Result<Ended> {
        let what = format!("the end of {}", process.name);
        crate::wait::until(&what, limit, Duration::from_millis(20), || self.ended(process))
    }

    /// Runs a program to its successful end and returns what it printed.
    ///
    /// # Errors
    /// When it takes longer than `limit` or does not succeed; the text holds the end of its log.
    fn run(&self, launch: &Launch, limit: Duration) -> Result<String> {
        let process = self.start(launch)?;
        let ended = match self.wait(&process, limit) {
            Ok(ended) => ended,
            Err(error) => {
                self.signal(&process, Signal::Kill)?;
                return Err(error);
            }
        };
        if ended != Ended::Exited(0) {
            bail!("{} failed ({ended:?}): {}", describe(launch), log_tail(&process));
        }
        self.printed(&process)
    }
}

/// A launch as one line.
fn describe(launch: &Launch) -> String {
    let mut line = launch.program.file_name().to_owned();
    for argument in &launch.arguments {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// The last lines of a process's log, for an error's text.
pub fn log_tail(process: &Process) -> String {
    let Ok(log) = std::fs::read(&process.log) else { return format!("see {:?}", process.log) };
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n    ");
    format!("the end of {}:\n    {tail}", process.log.display())
}
