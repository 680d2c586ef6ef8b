//! The machine the scenario itself runs on: child processes over loopback.
//!
//! One thread starts all processes and lives as long as the rig, because the kernel ties the
//! signal at a parent's death to the thread that forked. Ports are taken from below the range for
//! outgoing connections, so that a server can be started again on the port it had. The thread that
//! makes a rig, and what it starts afterwards, see its volumes; other threads do not.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Resource, Rlimit, kill_process_group, prlimit};

use super::halves::Processors;
use super::volumes::Volumes;
use super::{
    Ability, Apart, Ended, Launch, LinkState, Network, Process, Program, Rig, Signal, Volume,
    network,
};

/// The ports that are tried: not privileged, and below Linux's range for outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How long a killed process may take until it is gone: its disk may be busy.
const DEATH: Duration = Duration::from_secs(30);

/// Processes of this machine.
pub struct ThisMachine {
    folder: PathBuf,
    demo: PathBuf,
    processors: Processors,
    volumes: Volumes,
    networks: AtomicU8,
    spawner: Option<(SyncSender<Order>, JoinHandle<()>)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<u32, Child>,
    ended: HashMap<u32, Ended>,
    starts: HashMap<String, u32>,
    stopped: bool,
}

struct Order {
    command: Command,
    answer: SyncSender<io::Result<Child>>,
}

impl ThisMachine {
    /// A rig whose files lie in `folder`. `demo` is the built `fleetloop-demo`; the product's
    /// programs lie beside it.
    ///
    /// # Errors
    /// When the folder cannot be made, or the system does not tell which processors there are.
    pub fn new(folder: &Path, demo: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join("logs"))
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        // Before the thread below, which inherits what this one sees.
        let volumes = Volumes::new(&folder.join("volumes"));
        // A rendezvous: whoever orders waits for the answer, so nothing ever queues.
        let (orders, inbox) = sync_channel::<Order>(0);
        let thread = std::thread::Builder::new().name("spawner".into()).spawn(move || {
            while let Ok(mut order) = inbox.recv() {
                // The asker always waits; if it is gone, the child dies with this thread.
                let _ = order.answer.send(order.command.spawn());
            }
        });
        let thread = thread.context("cannot start the thread that starts processes")?;
        Ok(Self {
            folder: folder.to_owned(),
            demo: demo.to_owned(),
            processors: Processors::here()?,
            volumes,
            networks: AtomicU8::new(0),
            spawner: Some((orders, thread)),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two of its statements, so a panic elsewhere changes
        // nothing about it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command(
        &self,
        launch: &Launch,
        words: &[OsString],
        files: &(PathBuf, PathBuf),
    ) -> Result<Command> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot create {}", path.display()))
        };
        let mut command = Command::new(&self.demo);
        command
            .arg("leash")
            .arg(std::process::id().to_string())
            .args(words)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(create(&files.0)?)
            .stderr(create(&files.1)?);
        Ok(command)
    }

    /// Starts `words` on the leash, with the names and the environment of `launch`.
    fn start_as(&self, launch: &Launch, words: &[OsString]) -> Result<Process> {
        let mut state = self.state();
        if state.stopped {
            bail!("cannot start {}: the run was stopped", launch.name);
        }
        let count = state.starts.entry(launch.name.clone()).or_default();
        *count += 1;
        let file =
            |kind: &str| self.folder.join("logs").join(format!("{}.{count}.{kind}", launch.name));
        let files = (file("out"), file("log"));
        let command = self.command(launch, words, &files)?;
        let child = self
            .spawn(command)
            .with_context(|| format!("cannot start {}", super::describe(launch)))?;
        let id = child.id();
        state.ended.remove(&id);
        state.running.insert(id, child);
        let (output, log) = files;
        Ok(Process { name: launch.name.clone(), id, output, log })
    }

    fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the spawning thread is gone");
        let (answer, reply) = sync_channel(1);
        let (orders, _) = self.spawner.as_ref().ok_or_else(gone)?;
        orders.send(Order { command, answer }).map_err(|_| gone())?;
        reply.recv().map_err(|_| gone())?
    }
}

impl State {
    /// Notes which processes have ended.
    fn reap(&mut self) {
        let ended = &mut self.ended;
        self.running.retain(|id, child| match child.try_wait() {
            Ok(Some(status)) => {
                ended.insert(*id, how(status));
                false
            }
            _ => true,
        });
    }

    /// Signals the group of a process that has not been waited for: its number is still its own.
    fn signal(&self, id: u32, signal: rustix::process::Signal) {
        let group = i32::try_from(id).ok().and_then(Pid::from_raw);
        if let (true, Some(group)) = (self.running.contains_key(&id), group) {
            // It can only fail because the process has just ended, which is as good.
            let _ = kill_process_group(group, signal);
        }
    }

    fn signal_all(&self, signal: rustix::process::Signal) {
        for id in self.running.keys() {
            self.signal(*id, signal);
        }
    }
}

/// A line of what the kernel says of a process's memory, in bytes.
fn memory(process: &Process, line: &str) -> Result<u64> {
    let cannot = || format!("cannot tell the memory of {}", process.name);
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id));
    let status = status.with_context(cannot)?;
    let found = status.lines().find_map(|found| found.strip_prefix(line));
    let kibibytes =
        found.and_then(|found| found.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.map(|kibibytes| kibibytes * 1024).with_context(cannot)
}

fn how(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Killed(signal.unwrap_or(0)),
    }
}

impl Rig for ThisMachine {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn free_port(&self) -> Result<u16> {
        /// Where the search goes on, in steps that differ between processes.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Rigs of processes that were started one after another begin far apart: a port is not
        // taken before its process listens.
        let spread = std::process::id().wrapping_mul(61);
        let begin = (spread % u32::from(PORTS.end - PORTS.start)) as u16;
        for _ in PORTS {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let port = PORTS.start + begin.wrapping_add(step) % (PORTS.end - PORTS.start);
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
        bail!("cannot find a free port from {} to {}", PORTS.start, PORTS.end)
    }

    fn start(&self, launch: &Launch) -> Result<Process> {
        let program = self.demo.with_file_name(launch.program.file_name());
        if !program.is_file() {
            let program = program.display();
            bail!("cannot find {program}: run 'cargo build --release --workspace' first");
        }
        let mut words: Vec<OsString> = Vec::new();
        words.extend(launch.network.iter().flat_map(|network| network::enter(network.id)));
        if let Some(half) = launch.half {
            let list: Vec<String> =
                self.processors.half(half).iter().map(usize::to_string).collect();
            words.extend(["taskset".into(), "--cpu-list".into(), list.join(",").into()]);
        }
        if let Some(most) = launch.descriptors {
            words.extend(["prlimit".into(), format!("--nofile={most}:{most}").into()]);
        }
        words.push(program.into());
        words.extend(launch.arguments.iter().cloned());
        self.start_as(launch, &words)
    }

    fn signal(&self, process: &Process, signal: Signal) -> Result<()> {
        let mut state = self.state();
        state.reap();
        state.signal(
            process.id,
            match signal {
                Signal::Terminate => rustix::process::Signal::TERM,
                Signal::Kill => rustix::process::Signal::KILL,
                Signal::Stop => rustix::process::Signal::STOP,
                Signal::Continue => rustix::process::Signal::CONT,
            },
        );
        Ok(())
    }

    fn ended(&self, process: &Process) -> Result<Option<Ended>> {
        let mut state = self.state();
        state.reap();
        if state.running.contains_key(&process.id) {
            return Ok(None);
        }
        let ended = state.ended.get(&process.id).copied();
        ended.map(Some).ok_or_else(|| anyhow!("{} was never started here", process.name))
    }

    fn printed(&self, process: &Process) -> Result<String> {
        std::fs::read_to_string(&process.output)
            .with_context(|| format!("cannot read what {} printed", process.name))
    }

    fn lacks(&self, ability: Ability) -> Option<String> {
        match ability {
            Ability::PowerCut => Volumes::lacking(),
            Ability::BrokenLink => network::lacking(),
            Ability::Halves => self.processors.lacking(),
        }
    }

    fn volume(&self, name: &str) -> Result<Volume> {
        self.volumes.make(name)
    }

    fn cut_power(&self, volume: &Volume, processes: &[&Process]) -> Result<()> {
        self.volumes.shut_down(volume)?;
        for process in processes {
            self.signal(process, Signal::Kill)?;
        }
        for process in processes {
            self.wait(process, DEATH)?;
        }
        Ok(())
    }

    fn restore(&self, volume: &Volume) -> Result<()> {
        self.volumes.restore(volume)
    }

    fn fill(&self, volume: &Volume) -> Result<()> {
        Volumes::fill(volume)
    }

    fn make_room(&self, volume: &Volume) -> Result<()> {
        Volumes::make_room(volume)
    }

    fn apart(&self) -> Result<Apart> {
        Apart::begin(&self.processors)
    }

    fn network(&self) -> Result<Network> {
        let number = self.networks.fetch_add(1, Ordering::Relaxed);
        let launch = Launch::new("network", Program::Demo, Vec::<OsString>::new());
        let holder = self.start_as(&launch, &network::holder())?;
        network::join(&holder, number)
    }

    fn set_link(&self, network: &Network, state: LinkState) -> Result<()> {
        network::set(network, state)
    }

    fn resident_bytes(&self, process: &Process) -> Result<u64> {
        memory(process, "VmRSS:")
    }

    fn open_descriptors(&self, process: &Process) -> Result<u64> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", process.id));
        let open = open.with_context(|| format!("cannot see what {} has open", process.name))?;
        Ok(open.count() as u64)
    }

    fn limit_memory(&self, process: &Process, more_bytes: u64) -> Result<()> {
        let limit = Some(memory(process, "VmSize:")? + more_bytes);
        let pid = i32::try_from(process.id).ok().and_then(Pid::from_raw);
        let rlimit = Rlimit { current: limit, maximum: limit };
        prlimit(pid, Resource::As, rlimit)
            .map(drop)
            .with_context(|| format!("cannot limit the memory of {}", process.name))
    }

    fn stop_all(&self, grace: Duration) {
        self.end_all(grace);
        self.volumes.unmount_all();
    }
}

impl ThisMachine {
    fn end_all(&self, grace: Duration) {
        let begun = Instant::now();
        self.state().stopped = true;
        self.state().signal_all(rustix::process::Signal::TERM);
        let mut forced = false;
        loop {
            let mut state = self.state();
            state.reap();
            if state.running.is_empty() {
                return;
            }
            if !forced && begun.elapsed() >= grace {
                state.signal_all(rustix::process::Signal::KILL);
                forced = true;
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for ThisMachine {
    fn drop(&mut self) {
        self.stop_all(Duration::ZERO);
        if let Some((orders, thread)) = self.spawner.take() {
            drop(orders);
            // It ends when its channel does; a panic there has been printed already.
            let _ = thread.join();
        }
    }
}
