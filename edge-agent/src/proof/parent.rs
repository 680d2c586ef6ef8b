//! The agent's side: starts the child, waits, and says in words what its end means.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleetloop_models::picture::Frame;
use fleetloop_models::session::Optimised;
use fleetloop_observe::text::bounded;
use fleetloop_protocol::{BundleDigest, Digest};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{COMMAND, Limits, Picture, Proven, Request, Verdict};
use crate::chain::chain;
use crate::durable;

/// How often it is looked whether the child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The most of what a child says that is read, in bytes.
const SAID_BYTES: u64 = 64 * 1024;

/// The most characters of its last words that a reason shows.
const SHOWN: usize = 300;

/// The file that a child writes.
const OUT: &str = "graph.ort";

/// Tries models in child processes, one at a time. All clones are one.
#[derive(Debug, Clone)]
pub struct Prover {
    program: PathBuf,
    arguments: Vec<OsString>,
    scratch: PathBuf,
    limits: Limits,
    one: Arc<Mutex<()>>,
}

/// What is to be tried.
pub(crate) struct Task {
    pub bundle: BundleDigest,
    /// Where the bundle is.
    pub folder: PathBuf,
    /// ONNX Runtime's library.
    pub library: PathBuf,
    /// Recent frames of this source.
    pub frames: Vec<Frame>,
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The model is at fault.
    Refused(String),
    /// The model was not tried: the fault is this machine's.
    Untried(String),
    /// Nobody wants to know any more.
    Cancelled,
}

/// Ends a trial from outside. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// The trial is to end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Prover {
    /// Starts this program again for each trial, whatever became of its file meanwhile. Children write
    /// in a folder below `data_dir`.
    pub fn new(data_dir: &Path, limits: Limits) -> Self {
        Self::of("/proc/self/exe".into(), data_dir, limits)
    }

    /// The same with the agent's program at another place: for tests, which are another program.
    pub fn of(program: PathBuf, data_dir: &Path, limits: Limits) -> Self {
        Self {
            program,
            arguments: vec![COMMAND.into()],
            scratch: data_dir.join("update").join("proof"),
            limits,
            one: Arc::default(),
        }
    }

    /// The limits of a trial.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Tries a model. Blocks, up to the limit of time; has to stay on its thread, for the child ends
    /// with it.
    pub(crate) fn prove(&self, task: Task, cancel: &Cancel) -> Result<Proven, Failure> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        if cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let untried = |what: &str, error: &dyn std::error::Error| {
            Failure::Untried(format!("cannot {what}: {}", chain(error)))
        };
        std::fs::remove_dir_all(&self.scratch).ok();
        durable::create_dir(&self.scratch).map_err(|e| untried("make a folder for it", &e))?;
        let mut child = self.start(task).map_err(|e| untried("start its process", &e))?;
        let ended = self.wait(&mut child, cancel);
        let said = said(&mut child);
        let graph = ended.and_then(|status| self.judge(status, &said));
        std::fs::remove_dir_all(&self.scratch).ok();
        graph
    }

    fn start(&self, task: Task) -> std::io::Result<Child> {
        let scratch = self.scratch.canonicalize()?;
        let request = Request {
            parent: std::process::id(),
            bundle: task.bundle,
            folder: task.folder.canonicalize()?,
            library: task.library.canonicalize()?,
            out: scratch.join(OUT),
            limits: self.limits,
            frames: task.frames.iter().map(Picture::of).collect(),
        };
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&scratch).process_group(0).env_clear();
        // Where the library's own libraries may be.
        command.envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // On a thread: a child that does not read must not hold this one up. It ends with the child.
            let write = move || {
                let mut frames = task.frames.iter();
                let written = stdin.write_all(&line);
                drop(written.and_then(|()| frames.try_for_each(|f| stdin.write_all(f.pixels()))));
            };
            std::thread::Builder::new().name("request".into()).spawn(write)?;
        }
        Ok(child)
    }

    fn wait(&self, child: &mut Child, cancel: &Cancel) -> Result<ExitStatus, Failure> {
        let begun = Instant::now();
        let failure = loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => break Failure::Untried(format!("cannot wait for it: {error}")),
            }
            if cancel.is_cancelled() {
                break Failure::Cancelled;
            }
            if begun.elapsed() > self.limits.wall() {
                let wall_s = self.limits.wall_s;
                break Failure::Refused(format!(
                    "trying it took more than {wall_s} s (proof.wall_s) and was ended"
                ));
            }
            std::thread::sleep(LOOK_EVERY);
        };
        if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
            kill_process_group(group, Signal::KILL).ok();
        }
        child.kill().ok();
        child.wait().ok();
        Err(failure)
    }

    fn judge(&self, status: ExitStatus, said: &Said) -> Result<Proven, Failure> {
        let verdict = said.out.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        match verdict {
            Some(Verdict::Proven { optimised, confined }) if status.success() => {
                tracing::info!(confined, "a new model was tried in a child process");
                self.graph(optimised)
            }
            Some(Verdict::Refused { reason }) => Err(Failure::Refused(shown(&reason))),
            Some(Verdict::Untried { reason }) => Err(Failure::Untried(shown(&reason))),
            Some(Verdict::Proven { .. }) | None => Err(Failure::Refused(self.words(status, said))),
        }
    }

    /// The bytes that were proven.
    fn graph(&self, optimised: Option<Digest>) -> Result<Proven, Failure> {
        let Some(digest) = optimised else { return Ok(Proven::Own) };
        let limit = u64::from(self.limits.file_mb) << 20;
        let read = durable::read(&self.scratch.join(OUT), limit).ok().flatten();
        read.and_then(|bytes| Optimised::of(bytes, 0, digest)).map(Proven::Optimised).ok_or_else(
            || Failure::Untried("the optimised graph is not the one that was proven".to_owned()),
        )
    }

    /// What an end without a verdict means.
    fn words(&self, status: ExitStatus, said: &Said) -> String {
        let Limits { cpu_s, memory_mb, file_mb, .. } = self.limits;
        let memory = format!("it may use {memory_mb} MiB of memory (proof.memory_mb)");
        let end = match status.signal() {
            Some(libc::SIGXCPU) => {
                return format!(
                    "trying it took more than {cpu_s} s of processor time (proof.cpu_s)"
                );
            }
            Some(libc::SIGXFSZ) => {
                return format!("its optimised graph has more than {file_mb} MiB (proof.file_mb)");
            }
            Some(libc::SIGKILL) => {
                format!(
                    "the system ended the process that tried it, most likely for memory; {memory}"
                )
            }
            Some(signal) => {
                format!("the process that tried it ended by signal {signal}; {memory}")
            }
            None => {
                format!("the process that tried it ended without a verdict ({status}); {memory}")
            }
        };
        match said.error.trim() {
            "" => end,
            words => format!("{end}; it said: {}", shown(words)),
        }
    }
}

/// What a child said.
struct Said {
    out: String,
    error: String,
}

fn said(child: &mut Child) -> Said {
    fn text(from: Option<impl std::io::Read>) -> String {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            // A part will do.
            drop(from.take(SAID_BYTES).read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
    Said { out: text(child.stdout.take()), error: text(child.stderr.take()) }
}

/// What a child says is not to be trusted: nothing hidden, and not much of it.
fn shown(words: &str) -> String {
    bounded(words.trim(), SHOWN).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { wall_s: 1, cpu_s: 1, memory_mb: 64, file_mb: 1, run_s: 1 };

    /// Has a shell command play the child.
    fn played(script: &str, cancel: &Cancel) -> Result<(), Failure> {
        let dir = tempfile::tempdir().unwrap();
        let mut prover = Prover::of("/bin/sh".into(), dir.path(), LIMITS);
        prover.arguments = vec!["-c".into(), script.into()];
        let task = Task {
            bundle: BundleDigest(Digest::ZERO),
            folder: dir.path().to_owned(),
            library: dir.path().to_owned(),
            frames: Vec::new(),
        };
        let proven = prover.prove(task, cancel).map(drop);
        assert!(!dir.path().join("update/proof").exists(), "nothing is left over");
        proven
    }

    fn refused(script: &str, word: &str) {
        match played(script, &Cancel::default()) {
            Err(Failure::Refused(reason)) => assert!(reason.contains(word), "{script}: {reason}"),
            other => panic!("{script}: {other:?}"),
        }
    }

    #[test]
    fn every_end_but_a_verdict_refuses_the_model_and_says_why() {
        refused("exit 0", "without a verdict");
        refused("exit 3", "without a verdict");
        refused("echo garbage", "without a verdict");
        refused("kill -SEGV $$", "signal 11");
        refused("kill -XCPU $$", "proof.cpu_s");
        refused("kill -XFSZ $$", "proof.file_mb");
        refused("kill -KILL $$", "proof.memory_mb");
        refused("echo bad_alloc >&2; kill -ABRT $$", "bad_alloc");
        refused("while :; do :; done", "proof.wall_s");
        refused(r#"echo '{"refused":{"reason":"golden"}}'; exit 1"#, "golden");
        // Who says that all is well and ends otherwise is not believed.
        refused(
            r#"echo '{"proven":{"optimised":null,"confined":""}}'; exit 1"#,
            "without a verdict",
        );
    }

    #[test]
    fn a_verdict_counts_with_the_bytes_that_it_names_only() {
        let proven = |digest: &str, write: &str| {
            let verdict = format!(r#"{{"proven":{{"optimised":{digest},"confined":"all"}}}}"#);
            played(&format!("{write}; echo '{verdict}'"), &Cancel::default())
        };
        assert_eq!(proven("null", "true"), Ok(()));
        let digest = format!("\"{}\"", Digest::of(b"graph"));
        assert_eq!(proven(&digest, "printf graph > graph.ort"), Ok(()));
        for write in ["printf other > graph.ort", "true"] {
            let other = proven(&digest, write);
            assert!(matches!(other, Err(Failure::Untried(_))), "{other:?}");
        }
    }

    #[test]
    fn a_fault_of_the_machine_is_not_the_models() {
        let untried = r#"echo '{"untried":{"reason":"no landlock"}}'; exit 1"#;
        let failure = played(untried, &Cancel::default());
        assert_eq!(failure, Err(Failure::Untried("no landlock".into())));
    }

    #[test]
    fn a_trial_that_nobody_waits_for_is_ended() {
        let cancel = Cancel::default();
        let trial = {
            let cancel = cancel.clone();
            std::thread::spawn(move || {
                let begun = Instant::now();
                (played("sleep 60", &cancel), begun.elapsed())
            })
        };
        cancel.cancel();
        let (ended, after) = trial.join().unwrap();
        assert!(matches!(ended, Err(Failure::Cancelled)), "{ended:?}");
        assert!(after < Duration::from_secs(30));
    }
}
