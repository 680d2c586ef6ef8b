//! However the demo ends, none of its processes outlives it.
//!
//! All descendants are found by a mark in their environment, which they inherit.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hil_tests::wait::until;
use rustix::process::{Pid, Signal, kill_process_group};

/// One demo at a time: each uses both cores.
static ONE: Mutex<()> = Mutex::new(());

const LOOK: Duration = Duration::from_millis(50);

/// Two trainings' time on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// How long the demo lets its processes end in order, and then some.
const END: Duration = Duration::from_secs(30);

struct Demo {
    child: Child,
    mark: String,
    folder: tempfile::TempDir,
}

impl Demo {
    fn start(name: &str, errors: Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mark = format!("FLEETLOOP_TEST_MARK={name}-{}", std::process::id());
        let (variable, value) = mark.split_once('=').unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_fleetloop-demo"))
            .args(["--small", "--folder"])
            .arg(folder.path().join("run"))
            .env(variable, value)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap();
        Self { child, mark, folder }
    }

    /// Waits for the `start`-th start of a process. Its log is made first; no other process may be there yet.
    fn until_it_runs(&mut self, process: &str, start: u32) {
        let logs = self.folder.path().join("run/logs");
        let file: PathBuf = logs.join(format!("{process}.{start}.out"));
        until(process, LONG, LOOK, || {
            assert!(self.child.try_wait()?.is_none(), "the demo ended before {process} began");
            Ok((file.exists() && self.living().len() > 1).then_some(()))
        })
        .unwrap();
    }

    fn signal(&self, signal: Signal) {
        let group = Pid::from_child(&self.child);
        kill_process_group(group, signal).unwrap();
    }

    /// The command names of all processes that carry the mark and are not zombies.
    fn living(&self) -> Vec<String> {
        let marked = |process: &Path| {
            let environment = std::fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == self.mark.as_bytes())
        };
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|process| marked(process))
            .map(|process| std::fs::read_to_string(process.join("comm")).unwrap_or_default())
            .collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ends_after(name: &str, process: (&str, u32), signal: Signal) -> std::process::ExitStatus {
    ends(name, process, signal, Stdio::null())
}

fn ends(
    name: &str,
    process: (&str, u32),
    signal: Signal,
    errors: Stdio,
) -> std::process::ExitStatus {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut demo = Demo::start(name, errors);
    demo.until_it_runs(process.0, process.1);
    demo.signal(signal);
    let status = until("the demo's end", END, LOOK, || Ok(demo.child.try_wait()?)).unwrap();
    let gone =
        until("all processes to end", END, LOOK, || Ok(demo.living().is_empty().then_some(())));
    assert!(gone.is_ok(), "left behind: {:?}", demo.living());
    status
}

#[test]
fn ctrl_c_while_the_first_model_is_trained_leaves_no_process_behind() {
    // Two imports and a freeze, then the command that starts the training.
    let status = ends_after("training", ("admin", 4), Signal::INT);
    assert_eq!(status.code(), Some(130));
}

#[test]
fn ctrl_c_while_the_devices_run_leaves_no_process_behind() {
    let status = ends_after("devices", ("agent-2", 1), Signal::INT);
    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_closed_terminal_leaves_no_process_behind() {
    // Every write fails, as to a terminal that is gone.
    let (reader, terminal) = std::io::pipe().unwrap();
    drop(reader);
    let status = ends("terminal", ("hub", 1), Signal::HUP, terminal.into());
    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_killed_demo_leaves_no_process_behind() {
    let status = ends_after("killed", ("agent-2", 1), Signal::KILL);
    assert_eq!(status.code(), None);
}
