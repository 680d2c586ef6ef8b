//! The outbox: samples stay here, on disk, until the hub's receipt says that they are stored.
//!
//! Purpose: [`Outbox::append`] makes a sample (salt, commitment, header, signature) and stores its
//! complete message; [`Outbox::next_batch`] offers what is to be sent; [`Outbox::settle`] and
//! [`Outbox::refuse`] take the hub's answers. A payload too large for its message lies beside it:
//! [`Outbox::next_upload`] offers it, [`Outbox::uploaded`] then the message. The two never wait for
//! each other.
//!
//! Invariants, each tested:
//! - a row leaves only by a receipt that names its identity *and* digest, by a permanent refusal
//!   (to the dead-letter table), by eviction or by damage; the last three leave a signed gap, which
//!   travels and is settled like a sample;
//! - sequence and header chain continue across restarts; an epoch is one file's life, or ends when
//!   the hub has another sample under one of its identities ([`epochs`]): a file restored from an
//!   image, or a copy of it, begins a new one, and nothing is lost;
//! - signed = receipted + evicted + refused + damaged + waiting;
//! - what one transaction promised is on the disk before anyone hears of it.
//!
//! Limits: `max_rows` samples and `max_bytes` of messages; at either the least informative go first
//! (see [`evict`]). Gaps count as bytes only and merge while the hub has not seen them, so there
//! are at most samples + 1 of them beside those under way. [`DEAD_LETTERS`] dead letters, the
//! oldest dropped and counted; of a large one the message stays, its payload goes. [`COMMANDS`]
//! commands and [`QUEUED_BYTES`] of payloads wait at most; an append beyond that is not made and
//! counted, for inference never waits. One payload at a time is in memory to be uploaded.
//!
//! At a full or failing disk appends are refused and counted, one a [`PROBE_EVERY`] is tried, and
//! the first that succeeds resumes; everything stored stays. A damaged file is moved aside and a new
//! epoch begins.

mod epochs;
mod evict;
mod export;
mod road;
mod schema;
mod steps;
mod upload;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fleetloop_protocol::keys::{KeyError, SigningKey};
use fleetloop_protocol::limits::PAYLOAD_BYTES;
use fleetloop_protocol::receipt::{Receipt, Refusal};
use fleetloop_protocol::sample::{MediaType, Prediction, Selection};
use fleetloop_protocol::topic::Kind;
use fleetloop_protocol::wire::DecodeError;
use fleetloop_protocol::{BundleDigest, ClockState, DeviceId, Digest, Epoch, SampleId, UnixMillis};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::config::OutboxConfig;
use crate::durable::DurableError;
use crate::threads;
pub use export::{ExportError, Exported, export};
use writer::{Command, Writer};

/// The outbox's file within the data folder.
pub const FILE: &str = "outbox.db";

/// Commands that may wait for the writer: a second of samples at a rate no budget allows.
pub const COMMANDS: usize = 64;

/// Bytes of payloads that may wait for the writer: two of the largest, or more than all commands can
/// hold of payloads that travel in their message.
pub const QUEUED_BYTES: u64 = 2 * PAYLOAD_BYTES as u64;

/// The most dead letters that are kept, at most 32 MiB.
pub const DEAD_LETTERS: u64 = 256;

/// How long a row that was offered is not offered again.
pub const LEASE: Duration = Duration::from_secs(30);

/// How long a payload that is being uploaded is neither offered again nor evicted. A slower upload
/// only loses that protection.
pub const UPLOAD_LEASE: Duration = Duration::from_secs(600);

/// How often a paused outbox tries to write.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);

/// The longest wait that a hub's refusal can ask for.
pub const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// What inference knows of a frame that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// When the frame was taken.
    pub captured_at: UnixMillis,
    /// Whether that time can be relied on.
    pub clock: ClockState,
    /// The model that saw it.
    pub model: BundleDigest,
    /// The digest of the agent's configuration.
    pub config: Digest,
    /// How the payload is encoded.
    pub media_type: MediaType,
    /// The frame after masks and before preprocessing, at most [`PAYLOAD_BYTES`].
    pub payload: Vec<u8>,
    /// Why it was chosen.
    pub selection: Selection,
    /// What the model made of it.
    pub predictions: Vec<Prediction>,
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// [`Kind::Sample`] or [`Kind::Gap`].
    pub kind: Kind,
    /// The complete message.
    pub bytes: Vec<u8>,
    /// SHA-256 of `bytes`, by which a refusal names it.
    pub message: Digest,
    /// The sample; none for a gap.
    pub sample: Option<SampleId>,
}

/// A payload to upload before its message may be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Which row it is, for [`Outbox::uploaded`] and [`Outbox::postpone`].
    pub id: i64,
    /// The header's commitment, which names the upload.
    pub commitment: Digest,
    /// The salt of the commitment.
    pub salt: [u8; 16],
    /// The payload.
    pub payload: Vec<u8>,
}

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The row is gone from the disk.
    Deleted,
    /// There is no such row: settled before, or of another epoch.
    Unknown,
    /// The hub stored another digest under this identity; nothing was deleted.
    OtherDigest,
}

/// What became of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Permanent: the sample lies in the dead-letter table and a gap says so.
    DeadLetter,
    /// It will be offered again later.
    Retry,
    /// The hub has another sample under its identity: it is signed again, under a new one, and will be
    /// offered as such.
    SignedAgain,
    /// There is no such message.
    Unknown,
}

/// The outbox in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxStats {
    /// Which life of the file.
    pub epoch: u64,
    /// Samples waiting.
    pub samples: u64,
    /// Gap records waiting.
    pub gaps: u64,
    /// Samples waiting whose payload is uploaded before their message is sent.
    pub uploads: u64,
    /// Bytes of messages and payloads waiting.
    pub bytes: u64,
    /// Samples in the dead-letter table.
    pub dead_letters: u64,
    /// Samples signed and stored, in this file's life.
    pub samples_signed_total: u64,
    /// Samples the hub gave a receipt for, in this file's life.
    pub samples_receipted_total: u64,
    /// Samples evicted at a limit, in this file's life.
    pub evicted_total: u64,
    /// Samples refused for good, in this file's life.
    pub refused_total: u64,
    /// Samples whose rows were damaged, in this file's life.
    pub damaged_total: u64,
    /// Dead letters dropped at the table's limit, in this file's life.
    pub dead_dropped_total: u64,
    /// Samples signed again because the hub had another one under their identity, or might have had,
    /// in this file's life.
    pub signed_again_total: u64,
    /// Epochs opened because the hub had another sample under an identity of this device, in this
    /// file's life: it was restored from an image, or another device uses its identity.
    pub epochs_opened_total: u64,
    /// Samples signed and stored since start.
    pub signed_since_start: u64,
    /// Samples evicted since start.
    pub evicted_since_start: u64,
    /// Samples not stored because of the disk, since start.
    pub append_failed: u64,
    /// Whether the disk refuses and selection is paused.
    pub paused: bool,
}

/// Why the outbox did not do something.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The file cannot be opened.
    #[error("cannot open outbox {}; is another agent running, is the disk full or read-only?", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// Another build wrote the file.
    #[error("cannot open outbox {}: it has schema {found}, and this agent reads schema {known}; run the agent that wrote it", path.display())]
    OtherSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema this build reads.
        known: i64,
    },
    /// Another device's samples lie in the file.
    #[error("cannot use outbox {}: it belongs to device {owner}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// A damaged file cannot be moved away.
    #[error("cannot move damaged outbox {} aside; move it by hand", path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DurableError,
    },
    /// The disk refuses writes; selection is paused.
    #[error("cannot write outbox {}: the disk refuses; make room, it resumes by itself", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
    },
    /// The outbox is behind: [`COMMANDS`] commands or [`QUEUED_BYTES`] wait.
    #[error("cannot store sample: too much waits for the disk already")]
    Busy,
    /// The writer has ended.
    #[error("cannot use outbox: it is closed")]
    Closed,
    /// The draft is over a limit.
    #[error("cannot sign sample")]
    Encode(#[from] DecodeError),
    /// No random bytes for a salt or an epoch.
    #[error("cannot sign sample: the system gives no random bytes")]
    Salt(#[from] KeyError),
    /// The system has no thread to give.
    #[error("cannot start the outbox's thread")]
    Thread(#[source] std::io::Error),
}

/// What the writer's thread and its handles share beside the channel.
struct Shared {
    wake: Arc<Notify>,
    /// Milliseconds of monotonic time until which appends are pointless; 0 when not paused.
    paused_until_ms: AtomicU64,
    /// Bytes of payloads that wait for the writer.
    queued_bytes: AtomicU64,
    clock: Clock,
}

impl Shared {
    fn new(clock: Clock) -> Self {
        Self {
            wake: Arc::new(Notify::new()),
            paused_until_ms: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            clock,
        }
    }
}

/// A handle to the outbox. All clones are one outbox; the writer's thread ends with
/// [`Outbox::close`].
#[derive(Clone)]
pub struct Outbox {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    stats: watch::Receiver<OutboxStats>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Outbox").field(&self.stats()).finish()
    }
}

impl Outbox {
    /// Opens the outbox in `data_dir` and starts its thread.
    ///
    /// # Errors
    /// [`OutboxError`] when the file cannot be used and not be replaced either. A disk that refuses
    /// is no error: selection is paused until it does not.
    pub fn open(
        data_dir: &Path,
        limits: &OutboxConfig,
        device: DeviceId,
        key: Arc<SigningKey>,
        clock: Clock,
    ) -> Result<Self, OutboxError> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared::new(clock));
        let path = data_dir.join(FILE);
        let writer = Writer::open(path, limits.clone(), device, key, shared.clone())?;
        let stats = writer.stats();
        let thread =
            threads::spawn("outbox", move || writer.run(receiver)).map_err(OutboxError::Thread)?;
        Ok(Self { commands, shared, stats, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Signs and stores a sample, without waiting: the answer comes through the receiver, which may
    /// be dropped. For a thread; never blocks.
    ///
    /// # Errors
    /// [`OutboxError::Busy`] when too many commands wait, [`OutboxError::Closed`].
    pub fn append(
        &self,
        draft: Draft,
    ) -> Result<oneshot::Receiver<Result<SampleId, OutboxError>>, OutboxError> {
        let (reply, answer) = oneshot::channel();
        let (queued, len) = (&self.shared.queued_bytes, draft.payload.len() as u64);
        let reserved = queued.fetch_add(len, Ordering::Relaxed) + len <= QUEUED_BYTES;
        let sent = if reserved {
            self.try_command(Command::Append { draft: Box::new(draft), reply })
        } else {
            Err(OutboxError::Busy)
        };
        if sent.is_err() {
            queued.fetch_sub(len, Ordering::Relaxed);
        }
        sent.map(|()| answer)
    }

    fn try_command(&self, command: Command) -> Result<(), OutboxError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OutboxError::Busy,
            mpsc::error::TrySendError::Closed(_) => OutboxError::Closed,
        })
    }

    /// Whether an append has a chance now: false while the disk refuses, but for a probe every
    /// [`PROBE_EVERY`].
    pub fn accepting(&self) -> bool {
        let until_ms = self.shared.paused_until_ms.load(Ordering::Relaxed);
        until_ms == 0 || self.shared.clock.monotonic().as_millis() >= u128::from(until_ms)
    }

    /// The next messages to publish that need no upload, oldest first, at most `max_rows` and `max_bytes` (but one, if
    /// there is one). They are not offered again for [`LEASE`], nor before
    /// [`Outbox::connection_lost`]. Empty when there is nothing, or the hub asked to wait.
    ///
    /// # Errors
    /// [`OutboxError::Disk`] or [`OutboxError::Closed`].
    pub async fn next_batch(
        &self,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<Outgoing>, OutboxError> {
        self.ask(|reply| Command::NextBatch { max_rows, max_bytes, reply }).await
    }

    /// The next payload to upload, the oldest; not offered again for [`UPLOAD_LEASE`]. None when
    /// there is nothing, or the hub asked to wait.
    ///
    /// # Errors
    /// [`OutboxError::Disk`] or [`OutboxError::Closed`].
    pub async fn next_upload(&self) -> Result<Option<Upload>, OutboxError> {
        self.ask(|reply| Command::NextUpload { reply }).await
    }

    /// That payload is at the hub: the message to publish now, which is not offered again for
    /// [`LEASE`]. None when the row has gone meanwhile.
    ///
    /// # Errors
    /// [`OutboxError::Disk`] or [`OutboxError::Closed`].
    pub async fn uploaded(&self, upload: i64) -> Result<Option<Outgoing>, OutboxError> {
        self.ask(|reply| Command::Uploaded { upload, reply }).await
    }

    /// That payload could not be uploaded: it is offered again after `wait`, at most
    /// [`LONGEST_RETRY`].
    ///
    /// # Errors
    /// [`OutboxError::Closed`].
    pub async fn postpone(&self, upload: i64, wait: Duration) -> Result<(), OutboxError> {
        self.ask(|reply| Command::Postpone { upload, wait, reply }).await
    }

    /// Every lease ends: what was under way on a connection that is gone is offered again.
    ///
    /// # Errors
    /// [`OutboxError::Closed`].
    pub async fn connection_lost(&self) -> Result<(), OutboxError> {
        self.ask(|reply| Command::ConnectionLost { reply }).await
    }

    /// Takes a verified receipt: the row goes if identity and digest are the ones stored here.
    ///
    /// # Errors
    /// [`OutboxError::Disk`] or [`OutboxError::Closed`]; the row is then still there.
    pub async fn settle(&self, receipt: Receipt) -> Result<Settled, OutboxError> {
        self.ask(|reply| Command::Settle { receipt, reply }).await
    }

    /// Takes a verified refusal.
    ///
    /// # Errors
    /// [`OutboxError::Disk`] or [`OutboxError::Closed`]; the row is then still there.
    pub async fn refuse(&self, refusal: Refusal) -> Result<Refused, OutboxError> {
        self.ask(|reply| Command::Refuse { refusal, reply }).await
    }

    /// Holds to other limits from now on; what is over them is evicted at once. For a thread: waits
    /// while too many commands wait, not for the disk.
    pub fn set_limits(&self, limits: OutboxConfig) {
        // Closed: there is nothing left to limit.
        drop(self.commands.blocking_send(Command::SetLimits { limits }));
    }

    /// Waits until everything that was asked before is on the disk.
    ///
    /// # Errors
    /// [`OutboxError::Closed`].
    pub async fn flush(&self) -> Result<(), OutboxError> {
        self.ask(|reply| Command::Flush { reply }).await
    }

    /// Asks the thread for a sign of life, without waiting.
    ///
    /// # Errors
    /// [`OutboxError::Busy`] when too many commands wait, [`OutboxError::Closed`].
    pub fn probe(&self) -> Result<oneshot::Receiver<Result<(), OutboxError>>, OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.try_command(Command::Flush { reply }).map(|()| answer)
    }

    /// Notified when there is something to send. Leases that run out do not notify: look again
    /// every second or so.
    pub fn wake(&self) -> Arc<Notify> {
        self.shared.wake.clone()
    }

    /// The numbers after the last transaction.
    pub fn stats(&self) -> OutboxStats {
        *self.stats.borrow()
    }

    /// Whether the writer's thread has ended.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Finishes what was asked, closes the file and ends the thread. Blocks.
    pub fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        // A full channel drains by itself; a closed one has ended already.
        if self.commands.blocking_send(Command::Close).is_ok() && thread.join().is_err() {
            tracing::error!("the outbox's thread panicked");
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, OutboxError>>) -> Command,
    ) -> Result<T, OutboxError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| OutboxError::Closed)?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }
}

/// The numbers of an outbox that no agent has open, for `status`.
///
/// # Errors
/// [`OutboxError::Open`] when an agent is running after all, or the file is damaged.
pub fn read_stats(data_dir: &Path, device: &DeviceId) -> Result<Option<OutboxStats>, OutboxError> {
    let path = data_dir.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    // The file is there, so no epoch is drawn.
    match schema::open(&path, device, UnixMillis(0)) {
        Ok((_, meta)) => Ok(Some(writer::stats_of(&meta, &writer::SinceStart::default()))),
        Err(unusable) => Err(unusable.at(&path)),
    }
}

impl OutboxStats {
    /// Which life of the file.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }
}
