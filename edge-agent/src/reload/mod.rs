//! The configuration of a running agent follows its file.
//!
//! ```text
//!  SIGHUP ─┐
//!          ├─► follow: worth reading? ─► Config: valid as a whole? ─► change: what follows? ─► owners
//!  poll ───┘                                   │ no: the old one stays, said once, shown in status
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`follow`] | when the file is worth reading; pure |
//! | [`change`] | what a new configuration changes, and what has to wait for the next start; pure |
//!
//! Invariants: a file is read only when it looked the same at two looks ([`POLL`] apart, or
//! [`SETTLE`] after SIGHUP), so a half-written one is not. It comes into force whole or not at all:
//! before anything changes the source that it names was opened, and the library and the folder that
//! the next start will want were found. It changes between two frames, each owner taking over what is
//! its own. A thread of its own, because it waits for the disk; nothing waits for it.
//!
//! Limit: what is in force is not kept. A start needs a right file; a wrong one is refused by name.

pub mod change;
pub mod follow;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::chain::chain;
use crate::config::Config;
use crate::decide::Rules;
use crate::frames::FrameQueue;
use crate::infer::{self, Inference};
use crate::outbox::Outbox;
use crate::source::{self, Schedule};
use crate::threads;
use change::{Change, Plan, plan};
use fleetloop_protocol::Digest;
use follow::{Follower, Identity};

/// How often the file is looked at.
pub const POLL: Duration = Duration::from_secs(2);

/// How long a file has to stay the same after SIGHUP, whose sender says that it is written.
pub const SETTLE: Duration = Duration::from_millis(250);

/// Looks after SIGHUP before the file counts as missing or unfinished.
const LOOKS: u32 = 20;

/// The configuration as status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// SHA-256 of the file in force: what sample headers name.
    pub digest: Digest,
    /// Where frames come from.
    pub source: String,
    /// Milliseconds between two of them.
    pub period_ms: u64,
    /// Why the file as it is now is not in force, if it is not.
    pub refused: Option<String>,
    /// Keys whose new values take effect at the next start.
    pub at_next_start: Vec<String>,
}

fn period_ms(rate_hz: f64) -> u64 {
    (1000.0 / rate_hz) as u64
}

/// Who takes over what.
pub struct Owners {
    /// Selection and results: the inference thread.
    pub rules: watch::Sender<Arc<Rules>>,
    /// The outbox's limits: its thread.
    pub outbox: Outbox,
    /// The telemetry interval: the main task.
    pub telemetry_every: watch::Sender<Duration>,
    /// The queue's length.
    pub queue: Arc<FrameQueue>,
    /// Where frames come from, and how often: the source's thread.
    pub schedule: Schedule,
    /// How long a swap waits for a frame.
    pub inference: Inference,
}

/// Says when a reload that was asked for begins and ends, for a service manager.
pub trait Announce: Send {
    /// It begins.
    fn reloading(&self);
    /// It ended, well or not.
    fn reloaded(&self);
}

/// Asks for a reload; dropping it ends the thread.
pub struct Reload(SyncSender<()>);

impl Reload {
    /// Has the file read as soon as it is settled, whether it seems changed or not.
    pub fn now(&self) {
        // Full: one is asked for already.
        let _ = self.0.try_send(());
    }
}

/// Starts the thread. `config` is in force and was read from `path`.
///
/// # Errors
/// The system's, when it has no thread to give.
pub fn spawn(
    path: PathBuf,
    config: Config,
    described: String,
    owners: Owners,
    announce: Box<dyn Announce>,
) -> std::io::Result<(Reload, watch::Receiver<Standing>, JoinHandle<()>)> {
    let standing = watch::Sender::new(Standing {
        digest: config.digest,
        source: described,
        period_ms: period_ms(config.source.rate_hz()),
        refused: None,
        at_next_start: Vec::new(),
    });
    let shown = standing.subscribe();
    // One request: a second one before the first is looked at asks for the same.
    let (ask, asked) = sync_channel(1);
    let follower = Follower::default();
    let keeper = Keeper { path, config, owners, follower, standing, announce };
    let thread = threads::spawn("reload", || keeper.run(asked))?;
    Ok((Reload(ask), shown, thread))
}

struct Keeper {
    path: PathBuf,
    config: Config,
    owners: Owners,
    follower: Follower,
    standing: watch::Sender<Standing>,
    announce: Box<dyn Announce>,
}

impl Keeper {
    // By value: the sender's end is the thread's.
    #[expect(clippy::needless_pass_by_value, reason = "the thread owns its end")]
    fn run(mut self, asked: Receiver<()>) {
        loop {
            match asked.recv_timeout(POLL) {
                Ok(()) => self.asked(),
                Err(RecvTimeoutError::Timeout) => drop(self.look()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn asked(&mut self) {
        self.announce.reloading();
        self.follower.forget();
        if !(0..LOOKS).any(|look| {
            if look > 0 {
                std::thread::sleep(SETTLE);
            }
            self.look()
        }) {
            self.refuse("the file is missing or still being written".into());
        }
        self.announce.reloaded();
    }

    /// Looks at the file, and takes it if it is another one and settled. Whether it was read.
    fn look(&mut self) -> bool {
        let identity = || std::fs::metadata(&self.path).ok().map(|found| Identity::from(&found));
        let before = identity();
        if !self.follower.look(before) {
            return false;
        }
        let read = Config::load(&self.path);
        let after = identity();
        if after != before {
            // Replaced or written to while it was read: it settles first.
            self.follower.look(after);
            return false;
        }
        self.follower.read();
        match read {
            Ok(config) => self.take(config),
            Err(error) => self.refuse(chain(&error)),
        }
        true
    }

    fn take(&mut self, config: Config) {
        if let Err(reason) = could_start(&config) {
            return self.refuse(reason);
        }
        let Plan { in_force, changes, at_next_start } = plan(&self.config, config);
        let opened = changes.iter().find_map(|change| match change {
            Change::Source(source) => Some(source::open(source)),
            _ => None,
        });
        let opened = match opened.transpose() {
            Ok(opened) => opened,
            Err(error) => return self.refuse(chain(&error)),
        };
        let source = opened.as_ref().map(|source| source.describe());
        self.apply(&changes, opened, in_force.source.rate_hz());
        if !changes.is_empty() {
            let digest = in_force.digest.short();
            tracing::info!(config = %digest, ?at_next_start, "a new configuration is in force");
        }
        self.config = in_force;
        self.standing.send_modify(|standing| {
            standing.digest = self.config.digest;
            standing.period_ms = period_ms(self.config.source.rate_hz());
            standing.refused = None;
            standing.at_next_start = at_next_start;
            if let Some(source) = source {
                standing.source = source;
            }
        });
    }

    /// Hands each owner what is its own.
    fn apply(&self, changes: &[Change], opened: Option<Box<dyn source::Source>>, rate_hz: f64) {
        let owners = &self.owners;
        for change in changes {
            match change {
                Change::Rules(rules) => drop(owners.rules.send_replace(Arc::new(rules.clone()))),
                Change::Outbox(limits) => owners.outbox.set_limits(limits.clone()),
                Change::TelemetryEvery(every) => drop(owners.telemetry_every.send_replace(*every)),
                Change::QueueFrames(frames) => owners.queue.set_capacity(*frames),
                Change::Rate(_) | Change::Source(_) => {
                    owners.inference.set_confirm_within(infer::confirm_within(rate_hz));
                }
            }
        }
        if changes.iter().any(|c| matches!(c, Change::Rate(_) | Change::Source(_))) {
            owners.schedule.change(opened, rate_hz);
        }
    }

    fn refuse(&self, reason: String) {
        tracing::error!(reason, "the new configuration is not used; the old one stays");
        self.standing.send_modify(|standing| standing.refused = Some(reason));
    }
}

/// Whether a start with `config` would find what it names, as far as that can be told now: nobody may
/// be there to see that the next one does not.
fn could_start(config: &Config) -> Result<(), String> {
    if let Some(library) = &config.inference.library
        && !library.is_file()
    {
        return Err(format!("inference.library names no file: {}", library.display()));
    }
    if !config.data_dir.is_dir() {
        return Err(format!("data_dir names no folder: {}", config.data_dir.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
