//! The trainer's worker that the hub starts beside itself.
//!
//! It is a client of the API like any other; the hub only keeps it running: restarted with a
//! back-off when it ends, told to end (SIGTERM) and then killed when the hub stops. Its standard
//! input is a pipe that the hub holds, so that it notices a hub that was killed.
//!
//! A worker that cannot work on this machine (ONNX Runtime is missing) ends with [`UNABLE`]. It is
//! reported once, with its own last line, and shown until a worker works; it is tried again now and
//! then without another word.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fleetloop_observe::text::bounded;
use fleetloop_protocol::backoff::Backoff;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

/// The shortest wait before a restart.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait before a restart.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A worker that ran this long was well; the next restart waits little.
const WELL: Duration = Duration::from_secs(60);

/// A worker that runs this long can work on this machine.
const ABLE: Duration = Duration::from_secs(5);

/// The exit status of a worker that cannot work on this machine (`EX_CONFIG`).
const UNABLE: i32 = 78;

/// The longest reason that is shown, in characters.
const REASON: usize = 600;

/// The longest line of a worker that is copied, in bytes; what follows is the next one.
const LINE_BYTES: u64 = 64 * 1024;

/// How the worker is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its access file.
    pub access: PathBuf,
    /// ONNX Runtime's library; searched for when absent.
    pub library: Option<PathBuf>,
    /// How long it may take to end.
    pub drain: Duration,
}

/// Keeps `trainer worker` running until `stopping` turns true. `unable` says why it cannot work here.
pub async fn run(
    start: Start,
    stopping: watch::Receiver<bool>,
    unable: watch::Sender<Option<String>>,
) {
    keep(&program(), &start, stopping, unable).await;
}

async fn keep(
    program: &Path,
    start: &Start,
    mut stopping: watch::Receiver<bool>,
    unable: watch::Sender<Option<String>>,
) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let started = Instant::now();
        let mut reason = None;
        match spawn(program, start) {
            Ok(mut child) => {
                // `wait` would close the pipe, and the worker would take the hub for dead.
                let _held = child.stdin.take();
                let last_line = child.stderr.take().map(|log| tokio::spawn(copy(log)));
                let able = tokio::time::sleep(ABLE);
                tokio::pin!(able);
                let mut is_able = false;
                // Cancel-safe: `wait` may be asked again, `wait_for` keeps nothing, a timer.
                let status = loop {
                    tokio::select! {
                        status = child.wait() => break status,
                        () = stopped(&mut stopping) => return end(child, start.drain).await,
                        () = &mut able, if !is_able => {
                            is_able = true;
                            unable.send_replace(None);
                        }
                    }
                };
                if status.as_ref().is_ok_and(|status| status.code() == Some(UNABLE)) {
                    let said = match last_line {
                        Some(line) => line.await.unwrap_or_default(),
                        None => String::new(),
                    };
                    reason = Some(bounded(said.trim_start_matches("error: "), REASON).into_owned());
                } else {
                    tracing::warn!(?status, "the worker ended");
                }
            }
            Err(error) => {
                reason = Some(format!(
                    "cannot start {}: {error}; build the trainer, or serve with --no-worker",
                    program.display()
                ));
            }
        }
        if started.elapsed() > WELL {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        match reason {
            None => tracing::info!(?wait, "the worker is started again"),
            Some(reason) => {
                // Once: what stays as it is needs no second line.
                if unable.borrow().as_ref() != Some(&reason) {
                    tracing::error!(
                        reason,
                        "THE WORKER CANNOT WORK ON THIS MACHINE; it is tried again now and then"
                    );
                    unable.send_replace(Some(reason));
                }
            }
        }
        // Cancel-safe: a timer and a watch.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut stopping) => return,
        }
    }
}

/// Copies a worker's log to the hub's, and returns its last line.
async fn copy(log: impl AsyncRead + Unpin) -> String {
    let mut log = BufReader::new(log);
    let (mut line, mut last) = (Vec::new(), String::new());
    loop {
        line.clear();
        let mut limited = tokio::io::AsyncReadExt::take(&mut log, LINE_BYTES);
        match limited.read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return last,
        }
        // The hub's log may be gone; the worker's work goes on.
        let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), &line);
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            text.trim().clone_into(&mut last);
        }
    }
}

/// Returns when the hub stops, or is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The trainer's program, beside the hub's own.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("trainer")
}

fn spawn(program: &Path, start: &Start) -> std::io::Result<Child> {
    // Standard output is the hub's own, for the line that says it is ready.
    let log = std::io::stderr().as_fd().try_clone_to_owned()?;
    let mut command = Command::new(program);
    command.arg("worker").arg("--access").arg(&start.access);
    if let Some(library) = &start.library {
        command.arg("--library").arg(library);
    }
    command
        .env("FLEETLOOP_EXIT_WITH_STDIN", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(log))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

async fn end(mut child: Child, drain: Duration) {
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid {
        // It may have ended by itself just now.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(drain, child.wait()).await.is_err() {
        tracing::warn!(
            "the worker did not end in time and is killed; its lease runs out by itself"
        );
        let _ = child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A worker that says when it begins and, once its standard input ends, that it noticed.
    const SCRIPT: &str = "#!/bin/sh\necho begun >> \"$3\"\ncat\necho noticed >> \"$3\"\n";

    fn script(dir: &Path, text: &str) -> PathBuf {
        let program = dir.join("trainer");
        crate::durable::write(&program, text.as_bytes(), crate::durable::Access::Everybody)
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    #[tokio::test]
    async fn the_worker_runs_until_the_hub_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let (program, told) = (script(dir.path(), SCRIPT), dir.path().join("told"));
        let (stop, stopping) = watch::channel(false);
        let start = Start { access: told.clone(), library: None, drain: Duration::from_secs(20) };
        let kept = tokio::spawn(async move {
            keep(&program, &start, stopping, watch::Sender::new(None)).await;
        });
        while !told.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(std::fs::read_to_string(&told).unwrap(), "begun\n");
        stop.send(true).unwrap();
        kept.await.unwrap();
    }

    #[tokio::test]
    async fn a_worker_that_cannot_work_here_is_reported_once_in_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let text = "#!/bin/sh\necho x >> \"$3\"\necho \"error: no library in $5\" >&2\nexit 78\n";
        let (program, told) = (script(dir.path(), text), dir.path().join("told"));
        let (stop, stopping) = watch::channel(false);
        let unable = watch::Sender::new(None);
        let mut changes = unable.subscribe();
        let (access, library) = (told.clone(), Some(PathBuf::from("/opt/ort.so")));
        let start = Start { access, library, drain: Duration::from_secs(20) };
        let kept = tokio::spawn(async move { keep(&program, &start, stopping, unable).await });
        changes.changed().await.unwrap();
        assert_eq!(changes.borrow_and_update().as_deref(), Some("no library in /opt/ort.so"));
        while std::fs::read_to_string(&told).unwrap_or_default().len() < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.send(true).unwrap();
        kept.await.unwrap();
        assert!(!changes.has_changed().unwrap_or(false), "tried again without another word");
    }
}
