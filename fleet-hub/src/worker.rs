//! The trainer's worker that the hub starts beside itself.
//!
//! It is a client of the API like any other; the hub only keeps it running: restarted with a
//! back-off when it ends, told to end (SIGTERM) and then killed when the hub stops. Its standard
//! input is a pipe that the hub holds, so that it notices a hub that was killed.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fleetloop_protocol::backoff::Backoff;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

/// The shortest wait before a restart.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait before a restart.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A worker that ran this long was well; the next restart waits little.
const WELL: Duration = Duration::from_secs(60);

/// Keeps `trainer worker` running until `stopping` turns true, then ends it within `drain`.
pub async fn run(access: PathBuf, stopping: watch::Receiver<bool>, drain: Duration) {
    keep(&program(), &access, stopping, drain).await;
}

async fn keep(program: &Path, access: &Path, mut stopping: watch::Receiver<bool>, drain: Duration) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let started = Instant::now();
        match start(program, access) {
            Ok(mut child) => {
                // `wait` would close the pipe, and the worker would take the hub for dead.
                let _held = child.stdin.take();
                // Cancel-safe: `wait` may be asked again, `wait_for` keeps nothing.
                tokio::select! {
                    status = child.wait() => tracing::warn!(?status, "the worker ended"),
                    () = stopped(&mut stopping) => return end(child, drain).await,
                }
            }
            Err(error) => {
                tracing::error!(%error, program = %program.display(), "cannot start the worker; build the trainer, or serve with --no-worker");
            }
        }
        if started.elapsed() > WELL {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        tracing::info!(?wait, "the worker is started again");
        // Cancel-safe: a timer and a watch.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut stopping) => return,
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

fn start(program: &Path, access: &Path) -> std::io::Result<Child> {
    // Standard output is the hub's own, for the line that says it is ready.
    let log = std::io::stderr().as_fd().try_clone_to_owned()?;
    Command::new(program)
        .arg("worker")
        .arg("--access")
        .arg(access)
        .env("FLEETLOOP_EXIT_WITH_STDIN", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(log))
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

    #[tokio::test]
    async fn the_worker_runs_until_the_hub_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let (program, told) = (dir.path().join("trainer"), dir.path().join("told"));
        crate::durable::write(&program, SCRIPT.as_bytes(), crate::durable::Access::Everybody)
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (stop, stopping) = watch::channel(false);
        let (watched, file) = (program.clone(), told.clone());
        let kept = tokio::spawn(async move {
            keep(&watched, &file, stopping, Duration::from_secs(20)).await;
        });
        while !told.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(std::fs::read_to_string(&told).unwrap(), "begun\n");
        stop.send(true).unwrap();
        kept.await.unwrap();
    }
}
