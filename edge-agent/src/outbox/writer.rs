//! The outbox's one thread: the only place that touches the file.
//!
//! Commands that wait together share one transaction (group commit), and nobody is answered before
//! it is on the disk. A group that fails is tried again command by command, so that one append on a
//! full disk does not undo the receipts beside it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::receipt::{Receipt, Refusal};
use fleetloop_protocol::{DeviceId, Epoch, SampleId};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot, watch};

use super::epochs::Epochs;
use super::evict::StepError;
use super::road::{self, Appended};
use super::schema::{self, Meta};
use super::{
    Draft, OutboxError, OutboxStats, Outgoing, PROBE_EVERY, Refused, Settled, Shared, Upload,
};
use crate::config::OutboxConfig;
use crate::priority;

/// The most commands one transaction takes.
const GROUP: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, OutboxError>>;

/// What the handles ask.
pub(super) enum Command {
    Append { draft: Box<Draft>, reply: Reply<SampleId> },
    NextBatch { max_rows: usize, max_bytes: usize, reply: Reply<Vec<Outgoing>> },
    NextUpload { reply: Reply<Option<Upload>> },
    Uploaded { upload: i64, reply: Reply<Option<Outgoing>> },
    Postpone { upload: i64, wait: Duration, reply: Reply<()> },
    ConnectionLost { reply: Reply<()> },
    Settle { receipt: Receipt, reply: Reply<Settled> },
    Refuse { refusal: Refusal, reply: Reply<Refused> },
    SetLimits { limits: OutboxConfig },
    Flush { reply: Reply<()> },
    Close,
}

/// What a command came to, answered after the commit.
enum Outcome {
    Appended(Appended),
    Batch(Vec<Outgoing>),
    Upload(Option<Upload>),
    Uploaded(Option<Outgoing>),
    Settled(Settled),
    Refused(Refused),
    Evicted(Vec<SampleId>),
    Done,
}

/// A row that is not offered before `until`.
#[derive(Clone, Copy)]
pub(super) struct Lease {
    pub until: Duration,
    /// The hub asked to wait: a new connection does not end it.
    pub retry: bool,
}

/// The thread's state.
pub(super) struct Writer {
    path: PathBuf,
    pub(super) limits: OutboxConfig,
    pub(super) device: DeviceId,
    pub(super) key: Arc<SigningKey>,
    pub(super) shared: Arc<Shared>,
    /// None after an I/O error or when the disk refused at the start: the next command opens the file again and reads what it holds.
    db: Option<Connection>,
    meta: Meta,
    pub(super) leases: HashMap<i64, Lease>,
    /// The hub asked for nothing at all before this.
    pub(super) hold_until: Duration,
    pub(super) epochs: Epochs,
    since_start: SinceStart,
    stats: watch::Sender<OutboxStats>,
}

impl Writer {
    pub(super) fn open(
        path: PathBuf,
        limits: OutboxConfig,
        device: DeviceId,
        key: Arc<SigningKey>,
        shared: Arc<Shared>,
    ) -> Result<Self, OutboxError> {
        let (db, meta) = match schema::open_or_begin(&path, &device, shared.clock.now()) {
            Ok((db, meta)) => (Some(db), meta),
            Err(error) if schema::is_disk(&error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "starting without an outbox; inference goes on");
                (None, Meta::new(Epoch(0)))
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path, limits, db, ..Self::of(meta, device, key, shared) })
    }

    /// Of a file that says `meta`, without limits, and without the file: whoever runs a step hands it in.
    pub(super) fn of(
        meta: Meta,
        device: DeviceId,
        key: Arc<SigningKey>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            path: PathBuf::new(),
            limits: OutboxConfig { max_bytes: u64::MAX, max_rows: u64::MAX },
            device,
            key,
            shared,
            db: None,
            meta,
            leases: HashMap::new(),
            hold_until: Duration::ZERO,
            epochs: Epochs::of(&meta),
            since_start: SinceStart::default(),
            stats: watch::Sender::new(stats_of(&meta, &SinceStart::default())),
        }
    }

    pub(super) fn stats(&self) -> watch::Receiver<OutboxStats> {
        self.stats.subscribe()
    }

    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        priority::give_way();
        if self.meta.samples + self.meta.gaps > 0 {
            self.shared.wake.notify_one();
        }
        while let Some(first) = commands.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = commands.try_recv()
            {
                group.push(next);
            }
            let close = group.iter().any(|command| matches!(command, Command::Close));
            self.group(group);
            if close {
                return;
            }
        }
    }

    fn group(&mut self, commands: Vec<Command>) {
        let mut outcomes = self.transaction(&commands);
        if outcomes.is_err() && commands.len() > 1 {
            let alone = commands.iter().map(|command| {
                match self.transaction(std::slice::from_ref(command)) {
                    Ok(mut one) => one.pop().unwrap_or(Err(OutboxError::Closed)),
                    Err(error) => Err(error),
                }
            });
            outcomes = Ok(alone.collect());
        }
        // Before the answers, so that whoever has one sees its effect in the numbers.
        self.account(&commands, &outcomes);
        let payloads = commands.iter().map(Command::payload_len).sum();
        match outcomes {
            Ok(outcomes) => {
                for (command, outcome) in commands.into_iter().zip(outcomes) {
                    answer(command, outcome);
                }
            }
            Err(error) => {
                // One command only: a longer group was taken apart above.
                for (command, error) in commands.into_iter().zip(std::iter::once(error)) {
                    answer(command, Err(error));
                }
            }
        }
        self.shared.queued_bytes.fetch_sub(payloads, Ordering::Relaxed);
    }

    fn account(
        &mut self,
        commands: &[Command],
        outcomes: &Result<Vec<Result<Outcome, OutboxError>>, OutboxError>,
    ) {
        let appends = commands.iter().filter(|c| matches!(c, Command::Append { .. })).count();
        let appended = outcomes.as_ref().map_or(0, |outcomes| {
            outcomes.iter().filter(|o| matches!(o, Ok(Outcome::Appended(..)))).count()
        });
        let since = &mut self.since_start;
        since.signed += appended as u64;
        since.append_failed += (appends - appended) as u64;
        if appended > 0 && since.paused {
            since.paused = false;
            self.shared.paused_until_ms.store(0, Ordering::Relaxed);
            tracing::info!(file = %self.path.display(), "the disk takes samples again");
        }
        let stats = stats_of(&self.meta, &self.since_start);
        let changed = self.stats.send_replace(stats) != stats;
        if changed && stats.samples + stats.gaps > 0 {
            self.shared.wake.notify_one();
        }
    }

    /// Runs the commands in one transaction. An error means that none of them happened.
    fn transaction(
        &mut self,
        commands: &[Command],
    ) -> Result<Vec<Result<Outcome, OutboxError>>, OutboxError> {
        let is_append = |c: &Command| matches!(c, Command::Append { .. });
        if self.paused_now() && commands.iter().all(is_append) {
            return Err(OutboxError::Disk { path: self.path.clone() });
        }
        let mut db = match self.db.take() {
            Some(db) => db,
            None => self.reopen().inspect_err(|error| {
                if commands.iter().any(is_append) {
                    self.pause(error);
                }
            })?,
        };
        let (leases, epochs) = (self.leases.clone(), self.epochs.clone());
        let result = self.attempt(&mut db, commands);
        self.db = Some(db);
        result.map_err(|error| {
            (self.leases, self.epochs) = (leases, epochs);
            match error {
                StepError::Outbox(error) => error,
                StepError::Sql(error) => self.failed(&error, commands),
            }
        })
    }

    fn attempt(
        &mut self,
        db: &mut Connection,
        commands: &[Command],
    ) -> Result<Vec<Result<Outcome, OutboxError>>, StepError> {
        let tx = db.transaction()?;
        let mut meta = self.meta;
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            priority::after_you();
            outcomes.push(match self.execute(&tx, &mut meta, command) {
                Ok(outcome) => Ok(outcome),
                // Found before anything was written, so the others go on.
                Err(StepError::Outbox(error)) => Err(error),
                Err(StepError::Sql(error)) => return Err(error.into()),
            });
        }
        if meta != self.meta {
            self.epochs.keep_ahead(&mut meta);
            meta.write(&tx)?;
        }
        // A power cut before this line: nobody was told anything. After it: all of it is there.
        tx.commit()?;
        self.since_start.evicted += meta.evicted_total - self.meta.evicted_total;
        self.meta = meta;
        self.epochs.log();
        Ok(outcomes)
    }

    fn reopen(&mut self) -> Result<Connection, OutboxError> {
        let (db, meta) = schema::open_or_begin(&self.path, &self.device, self.shared.clock.now())?;
        if meta.epoch != self.meta.epoch {
            self.leases.clear();
            self.hold_until = Duration::ZERO;
            self.epochs = Epochs::of(&meta);
        }
        // The failed commit may be on the disk after all: what the file says counts.
        self.meta = meta;
        Ok(db)
    }

    /// Decides what a database error means for the next command.
    fn failed(&mut self, error: &rusqlite::Error, commands: &[Command]) -> OutboxError {
        let disk = OutboxError::Disk { path: self.path.clone() };
        if schema::is_damage(error) {
            self.db = None;
            self.leases.clear();
            self.hold_until = Duration::ZERO;
            let now = self.shared.clock.now();
            match schema::begin_anew(&self.path, &self.device, now, &error.to_string()) {
                Ok((db, meta)) => {
                    (self.db, self.meta) = (Some(db), meta);
                    self.epochs = Epochs::of(&meta);
                }
                Err(error) => tracing::error!(%error, "no new outbox can begin"),
            }
            return disk;
        }
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            // Frees the log for reuse where that needs no new room, so that receipts go on.
            if let Some(db) = &self.db {
                let restart = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
                if let Err(error) = restart {
                    tracing::debug!(%error, "no checkpoint on the full disk");
                }
            }
        } else {
            // After a failed fsync the page cache may lie; a new connection reads the file.
            self.db = None;
        }
        if commands.iter().any(|c| matches!(c, Command::Append { .. })) {
            self.pause(error);
        } else {
            tracing::error!(%error, file = %self.path.display(), "the outbox's disk refuses");
        }
        disk
    }

    fn pause(&mut self, error: &dyn std::error::Error) {
        if !self.since_start.paused {
            tracing::error!(
                %error, file = %self.path.display(),
                "the disk refuses samples: selection is paused, inference goes on; make room, \
                 it resumes by itself"
            );
        }
        self.since_start.paused = true;
        let until = self.shared.clock.monotonic() + PROBE_EVERY;
        let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.shared.paused_until_ms.store(until_ms.max(1), Ordering::Relaxed);
    }

    fn paused_now(&self) -> bool {
        let until_ms = self.shared.paused_until_ms.load(Ordering::Relaxed);
        self.since_start.paused && self.shared.clock.monotonic().as_millis() < u128::from(until_ms)
    }

    fn execute(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
        command: &Command,
    ) -> Result<Outcome, StepError> {
        match command {
            Command::Append { draft, .. } => {
                if self.paused_now() {
                    return Err(OutboxError::Disk { path: self.path.clone() }.into());
                }
                self.append(db, meta, draft).map(Outcome::Appended)
            }
            Command::NextBatch { max_rows, max_bytes, .. } => {
                self.next_batch(db, meta, *max_rows, *max_bytes).map(Outcome::Batch)
            }
            Command::NextUpload { .. } => self.next_upload(db, meta).map(Outcome::Upload),
            Command::Uploaded { upload, .. } => self.uploaded(db, *upload).map(Outcome::Uploaded),
            Command::Postpone { upload, wait, .. } => {
                self.postpone(*upload, *wait);
                Ok(Outcome::Done)
            }
            Command::ConnectionLost { .. } => {
                self.leases.retain(|_, lease| lease.retry);
                Ok(Outcome::Done)
            }
            Command::Settle { receipt, .. } => self.settle(db, meta, receipt).map(Outcome::Settled),
            Command::Refuse { refusal, .. } => self.refuse(db, meta, refusal).map(Outcome::Refused),
            Command::SetLimits { limits } => {
                // They hold even if the disk refuses to evict now: the next append tries again.
                self.limits = limits.clone();
                self.evict(db, meta).map(Outcome::Evicted)
            }
            Command::Flush { .. } | Command::Close => Ok(Outcome::Done),
        }
    }
}

impl Command {
    /// The payload that it carries, in bytes.
    fn payload_len(&self) -> u64 {
        match self {
            Self::Append { draft, .. } => draft.payload.len() as u64,
            _ => 0,
        }
    }
}

/// Sends a command's answer; one that nobody waits for is dropped. What is logged here is on the
/// disk: whoever reads it may rely on it through a power cut.
fn answer(command: Command, outcome: Result<Outcome, OutboxError>) {
    match (command, outcome) {
        (Command::Append { draft, reply }, Ok(Outcome::Appended(appended))) => {
            appended.log(&draft);
            drop(reply.send(Ok(appended.id)));
        }
        (Command::NextBatch { reply, .. }, Ok(Outcome::Batch(batch))) => {
            drop(reply.send(Ok(batch)));
        }
        (Command::NextUpload { reply }, Ok(Outcome::Upload(u))) => drop(reply.send(Ok(u))),
        (Command::Uploaded { reply, .. }, Ok(Outcome::Uploaded(o))) => drop(reply.send(Ok(o))),
        (Command::Settle { receipt, reply }, Ok(Outcome::Settled(settled))) => {
            road::settled(&receipt, settled);
            drop(reply.send(Ok(settled)));
        }
        (Command::Refuse { reply, .. }, Ok(Outcome::Refused(r))) => drop(reply.send(Ok(r))),
        (
            Command::ConnectionLost { reply }
            | Command::Flush { reply }
            | Command::Postpone { reply, .. },
            outcome,
        ) => drop(reply.send(outcome.map(|_| ()))),
        (Command::Append { reply, .. }, outcome) => drop(reply.send(Err(no(outcome)))),
        (Command::NextBatch { reply, .. }, outcome) => drop(reply.send(Err(no(outcome)))),
        (Command::NextUpload { reply }, outcome) => drop(reply.send(Err(no(outcome)))),
        (Command::Uploaded { reply, .. }, outcome) => drop(reply.send(Err(no(outcome)))),
        (Command::Settle { reply, .. }, outcome) => drop(reply.send(Err(no(outcome)))),
        (Command::Refuse { reply, .. }, outcome) => drop(reply.send(Err(no(outcome)))),
        (Command::SetLimits { .. }, Ok(Outcome::Evicted(samples))) => road::evicted(&samples),
        (Command::SetLimits { .. } | Command::Close, _) => {}
    }
}

fn no(outcome: Result<Outcome, OutboxError>) -> OutboxError {
    outcome.err().unwrap_or(OutboxError::Closed)
}

/// What the file does not know.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SinceStart {
    signed: u64,
    evicted: u64,
    append_failed: u64,
    paused: bool,
}

/// The numbers of a file and of the process that has it open.
pub(super) fn stats_of(meta: &Meta, since_start: &SinceStart) -> OutboxStats {
    OutboxStats {
        epoch: meta.epoch.0,
        samples: meta.samples,
        gaps: meta.gaps,
        uploads: meta.uploads,
        bytes: meta.bytes,
        dead_letters: meta.dead_letters,
        samples_signed_total: meta.signed_total,
        samples_receipted_total: meta.receipted_total,
        evicted_total: meta.evicted_total,
        refused_total: meta.refused_total,
        damaged_total: meta.damaged_total,
        dead_dropped_total: meta.dead_dropped_total,
        signed_again_total: meta.signed_again_total,
        epochs_opened_total: meta.epochs_opened_total,
        signed_since_start: since_start.signed,
        evicted_since_start: since_start.evicted,
        append_failed: since_start.append_failed,
        paused: since_start.paused,
    }
}
