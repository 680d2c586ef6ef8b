//! The outbox's file: its tables, how it is opened, and what happens to one that cannot be used.
//! All SQL that shapes the file is here. A file of another schema is refused and left as it is.
//!
//! WAL with `synchronous=FULL`: a commit is on the disk when it returns. `locking_mode=EXCLUSIVE`:
//! one process, no shared memory file, and a second agent on the same folder is refused.
//! Totals live in `meta` and change in the transaction that changes the rows, so opening a file
//! reads one row however long the queue is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetloop_protocol::{DeviceId, Digest, Epoch, UnixMillis};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::{OutboxError, epochs};

/// How long another process may hold the file before it counts as in use.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// The version of the file's form.
const SCHEMA_VERSION: i64 = 1;

/// `item` holds what travels: samples (kind 0) and gaps (kind 1), `first_seq` to `last_seq` of their
/// epoch, linked in its chain of headers from `before` to `after`. `digest` is the body digest, which
/// receipts name; a sample's is its `after` too. `message_digest` is SHA-256 of `message`: refusals
/// name it, and damage shows in it. `message_len` counts what the row takes: the message and its
/// payload beside it. `random` and `score` order eviction. `offered`: the hub may have seen it, so a
/// gap may no longer grow.
///
/// `payload` holds what is too large for its message and is uploaded before it, one row for such an
/// item; damage shows in `commitment`. `meta.uploads` counts the rows.
///
/// `meta.offered_to` and `former_epoch.offered_to`: no sequence of that epoch from there on was ever
/// offered to the hub (see [`super::epochs`]).
const SCHEMA: &str = "
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    device TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    next_sequence INTEGER NOT NULL,
    head BLOB NOT NULL CHECK (length(head) = 32),
    offered_to INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    random_samples INTEGER NOT NULL,
    gaps INTEGER NOT NULL,
    uploads INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    dead_letters INTEGER NOT NULL,
    signed_total INTEGER NOT NULL,
    receipted_total INTEGER NOT NULL,
    evicted_total INTEGER NOT NULL,
    refused_total INTEGER NOT NULL,
    damaged_total INTEGER NOT NULL,
    dead_dropped_total INTEGER NOT NULL,
    signed_again_total INTEGER NOT NULL,
    epochs_opened_total INTEGER NOT NULL
);
CREATE TABLE former_epoch (
    epoch INTEGER PRIMARY KEY,
    offered_to INTEGER NOT NULL
);
CREATE TABLE item (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
    epoch INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    before BLOB NOT NULL CHECK (length(before) = 32),
    after BLOB NOT NULL CHECK (length(after) = 32),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    message_digest BLOB NOT NULL CHECK (length(message_digest) = 32),
    random INTEGER NOT NULL,
    score REAL NOT NULL,
    reason INTEGER NOT NULL,
    offered INTEGER NOT NULL,
    message_len INTEGER NOT NULL,
    message BLOB NOT NULL
);
CREATE UNIQUE INDEX item_first ON item (epoch, kind, first_seq);
CREATE UNIQUE INDEX item_last ON item (epoch, kind, last_seq);
CREATE INDEX item_message ON item (message_digest);
CREATE INDEX item_evict ON item (kind, random, score, id);
CREATE TABLE payload (
    item INTEGER PRIMARY KEY,
    commitment BLOB NOT NULL CHECK (length(commitment) = 32),
    salt BLOB NOT NULL CHECK (length(salt) = 16),
    bytes BLOB NOT NULL
);
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sequence INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    message BLOB NOT NULL
);
";

/// What the file says of itself, changed only inside transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub epoch: Epoch,
    pub next_sequence: u64,
    /// The body digest of the newest header.
    pub head: Digest,
    /// No sequence of this epoch from here on was ever offered to the hub.
    pub offered_to: u64,
    pub samples: u64,
    pub random_samples: u64,
    pub gaps: u64,
    /// Samples whose payload is uploaded.
    pub uploads: u64,
    /// Of the messages of samples and gaps, and of payloads beside them.
    pub bytes: u64,
    pub dead_letters: u64,
    pub signed_total: u64,
    pub receipted_total: u64,
    pub evicted_total: u64,
    pub refused_total: u64,
    pub damaged_total: u64,
    pub dead_dropped_total: u64,
    pub signed_again_total: u64,
    pub epochs_opened_total: u64,
}

impl Meta {
    /// Of a file that holds nothing yet.
    pub(super) const fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            next_sequence: 0,
            head: Digest::ZERO,
            offered_to: 0,
            samples: 0,
            random_samples: 0,
            gaps: 0,
            uploads: 0,
            bytes: 0,
            dead_letters: 0,
            signed_total: 0,
            receipted_total: 0,
            evicted_total: 0,
            refused_total: 0,
            damaged_total: 0,
            dead_dropped_total: 0,
            signed_again_total: 0,
            epochs_opened_total: 0,
        }
    }

    /// Reads the one row; none in a file that is just made.
    fn read(db: &Connection) -> rusqlite::Result<Option<(String, Self)>> {
        db.query_row(
            "SELECT device, epoch, next_sequence, head, samples, random_samples, gaps, bytes,
                    dead_letters, signed_total, receipted_total, evicted_total, refused_total,
                    damaged_total, dead_dropped_total, uploads, offered_to, signed_again_total,
                    epochs_opened_total FROM meta WHERE one = 1",
            [],
            |row| {
                let count = |i| row.get::<_, i64>(i).map(i64::cast_unsigned);
                Ok((
                    row.get(0)?,
                    Self {
                        epoch: Epoch(count(1)?),
                        next_sequence: count(2)?,
                        head: Digest::from_bytes(row.get(3)?),
                        samples: count(4)?,
                        random_samples: count(5)?,
                        gaps: count(6)?,
                        bytes: count(7)?,
                        dead_letters: count(8)?,
                        signed_total: count(9)?,
                        receipted_total: count(10)?,
                        evicted_total: count(11)?,
                        refused_total: count(12)?,
                        damaged_total: count(13)?,
                        dead_dropped_total: count(14)?,
                        uploads: count(15)?,
                        offered_to: count(16)?,
                        signed_again_total: count(17)?,
                        epochs_opened_total: count(18)?,
                    },
                ))
            },
        )
        .optional()
    }

    /// Writes all that can change; within the caller's transaction.
    pub(super) fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        db.prepare_cached(
            "UPDATE meta SET next_sequence = ?1, head = ?2, samples = ?3, random_samples = ?4,
                    gaps = ?5, bytes = ?6, dead_letters = ?7, signed_total = ?8,
                    receipted_total = ?9, evicted_total = ?10, refused_total = ?11,
                    damaged_total = ?12, dead_dropped_total = ?13, uploads = ?14, epoch = ?15,
                    offered_to = ?16, signed_again_total = ?17, epochs_opened_total = ?18
             WHERE one = 1",
        )?
        .execute(params![
            self.next_sequence.cast_signed(),
            self.head.as_bytes(),
            self.samples.cast_signed(),
            self.random_samples.cast_signed(),
            self.gaps.cast_signed(),
            self.bytes.cast_signed(),
            self.dead_letters.cast_signed(),
            self.signed_total.cast_signed(),
            self.receipted_total.cast_signed(),
            self.evicted_total.cast_signed(),
            self.refused_total.cast_signed(),
            self.damaged_total.cast_signed(),
            self.dead_dropped_total.cast_signed(),
            self.uploads.cast_signed(),
            self.epoch.0.cast_signed(),
            self.offered_to.cast_signed(),
            self.signed_again_total.cast_signed(),
            self.epochs_opened_total.cast_signed(),
        ])
        .map(|_| ())
    }
}

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Its bytes are damaged: it must be moved aside.
    Damaged(rusqlite::Error),
    /// It belongs to the device of that name: it must be moved aside.
    Foreign(String),
    /// Another build wrote it: it must be left alone.
    OtherSchema(i64),
    /// The system refuses for now (disk full, locked, permissions): it must be left alone.
    Refused(rusqlite::Error),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::Damaged(error) } else { Self::Refused(error) }
    }
}

impl Unusable {
    /// The error that says so of the file at `path`.
    pub(super) fn at(self, path: &Path) -> OutboxError {
        let path = path.to_owned();
        match self {
            Self::Damaged(source) | Self::Refused(source) => OutboxError::Open { path, source },
            Self::OtherSchema(found) => {
                OutboxError::OtherSchema { path, found, known: SCHEMA_VERSION }
            }
            Self::Foreign(owner) => OutboxError::Foreign { path, owner },
        }
    }
}

/// Whether the error is the disk's, which may pass, and not another process's or the file's.
pub(super) fn is_disk(error: &OutboxError) -> bool {
    let OutboxError::Open { source, .. } = error else { return false };
    matches!(
        source.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
    )
}

/// Whether the error says that the file's bytes are wrong.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, text) => match failure.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => true,
            // A file that is a database, but not ours.
            ErrorCode::Unknown => text.as_deref().is_some_and(|text| text.contains("no such")),
            _ => false,
        },
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

/// Opens `path` for `device`, making the file and drawing its epoch at the time `now` when there is
/// none.
pub(super) fn open(
    path: &Path,
    device: &DeviceId,
    now: UnixMillis,
) -> Result<(Connection, Meta), Unusable> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY_WAIT)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.set_prepared_statement_cache_capacity(64);
    match db.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        SCHEMA_VERSION => {}
        0 => create(&mut db, device, now)?,
        found => return Err(Unusable::OtherSchema(found)),
    }
    match Meta::read(&db)? {
        Some((owner, meta)) if owner == device.as_str() => Ok((db, meta)),
        Some((owner, _)) => Err(Unusable::Foreign(owner)),
        None => Err(Unusable::Damaged(rusqlite::Error::QueryReturnedNoRows)),
    }
}

/// A power cut before the commit leaves a file of version 0, which the next start makes anew with
/// another epoch: nothing was signed in between.
fn create(db: &mut Connection, device: &DeviceId, now: UnixMillis) -> rusqlite::Result<()> {
    let epoch = epochs::draw(Epoch(0), now)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let tx = db.transaction()?;
    tx.execute_batch(SCHEMA)?;
    tx.execute(
        "INSERT INTO meta VALUES (1, ?1, ?2, 0, ?3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
        params![device.as_str(), epoch.0.cast_signed(), Digest::ZERO.as_bytes()],
    )?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()
}

/// Opens `path`; a damaged or foreign file is moved aside and a new epoch begins in its place.
pub(super) fn open_or_begin(
    path: &Path,
    device: &DeviceId,
    now: UnixMillis,
) -> Result<(Connection, Meta), OutboxError> {
    match open(path, device, now) {
        Ok(opened) => Ok(opened),
        Err(Unusable::Damaged(error)) => begin_anew(path, device, now, &error.to_string()),
        Err(Unusable::Foreign(owner)) => {
            begin_anew(path, device, now, &format!("it belongs to device {owner}"))
        }
        Err(other) => Err(other.at(path)),
    }
}

/// Moves the file aside, whatever it holds, and begins a new epoch in its place.
///
/// The file goes before its log. A power cut between the two leaves the log alone; the next start
/// makes a new file, and SQLite deletes a log that lies beside an empty one. The other order could
/// leave the file without its newest commits, and identities would be used twice.
pub(super) fn begin_anew(
    path: &Path,
    device: &DeviceId,
    now: UnixMillis,
    why: &str,
) -> Result<(Connection, Meta), OutboxError> {
    let aside = move_aside(path)?;
    tracing::error!(
        file = %path.display(), aside = %aside.display(), why,
        "THE OUTBOX CANNOT BE USED and was moved aside; a new epoch begins; \
         samples in the old file that had no receipt will not arrive"
    );
    open(path, device, now).map_err(|unusable| unusable.at(path))
}

/// Renames the file and its log to the first free `….aside-N` and returns the file's new name.
fn move_aside(path: &Path) -> Result<PathBuf, OutboxError> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = (1u32..)
        .map(|n| named(&format!(".aside-{n}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| named(".aside"));
    for suffix in ["", "-wal", "-shm"] {
        let from = named(suffix);
        let mut to = aside.as_os_str().to_owned();
        to.push(suffix);
        if from.exists() {
            crate::durable::rename(&from, Path::new(&to))
                .map_err(|source| OutboxError::Aside { path: from, source })?;
        }
    }
    Ok(aside)
}
