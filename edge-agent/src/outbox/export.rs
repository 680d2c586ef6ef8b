//! What an outbox still holds, as a file, for a device that its hub does not let in any more.
//!
//! The outbox itself is neither changed nor needs to be writable: a copy of it is opened, beside the file
//! that is written, so that place needs room for both. Rows that would have been signed again before they
//! were offered ([`super::epochs`]) are, and damaged ones become gaps, as if they had been sent. Dead letters
//! are not exported: the hub refused them for good.
//!
//! The file is there as a whole or not at all. It is its user's only, as the outbox is.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fleetloop_protocol::export::{Head, Record, RecordKind};
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::{DeviceId, UnixMillis};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::evict::{GAP, StepError};
use super::schema::{self, Meta};
use super::writer::Writer;
use super::{FILE, OutboxError, Shared};
use crate::clock::Clock;
use crate::durable::{self, DurableError};
use crate::identity::{Identity, IdentityError};

/// How long a running agent may hold the file before it counts as in use.
const BUSY_WAIT: Duration = Duration::from_millis(300);

/// How often a long export is logged.
const PROGRESS: Duration = Duration::from_secs(2);

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// Whose samples they are.
    pub device: DeviceId,
    /// The file.
    pub file: PathBuf,
    /// Samples in it.
    pub samples: u64,
    /// Gaps in it: signed records of samples that the outbox dropped.
    pub gaps: u64,
    /// The file's length.
    pub bytes: u64,
}

impl std::fmt::Display for Exported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, file, samples, gaps, bytes } = self;
        let file = file.display();
        writeln!(
            f,
            "wrote {samples} samples and {gaps} gaps of {device} to {file}, {bytes} bytes"
        )?;
        writeln!(f, "take it to a machine that reaches the hub, and type there:")?;
        writeln!(f, "  fleet-hub sample collect {file}")
    }
}

/// Why no file was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The device is not enrolled, or its identity is broken.
    #[error("cannot export the outbox of {}", data.display())]
    Identity {
        /// The data folder.
        data: PathBuf,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// There is no outbox.
    #[error("cannot export {}: there is no such file; nothing was ever stored there", path.display())]
    None {
        /// The outbox's file.
        path: PathBuf,
    },
    /// An agent is running.
    #[error("cannot export {}: an agent is using it; stop the agent first", path.display())]
    InUse {
        /// The outbox's file.
        path: PathBuf,
    },
    /// The file to be written is there already.
    #[error("cannot write {}: it is there already; name another file", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The outbox cannot be read.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The outbox's rows cannot be read.
    #[error("cannot export {}: its rows cannot be read", path.display())]
    Rows {
        /// The outbox's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A row is no message.
    #[error("cannot export {}", path.display())]
    Record {
        /// The outbox's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: fleetloop_protocol::export::ExportError,
    },
    /// A file could not be copied or written.
    #[error("cannot export the outbox")]
    Durable(#[from] DurableError),
    /// Somebody asked to stop.
    #[error("stopped; nothing was written")]
    Stopped,
}

/// Writes what the outbox in `data_dir` holds to `out`, unless `stop` becomes true meanwhile. Blocks.
///
/// # Errors
/// [`ExportError`]; there is no file then, and the outbox is as it was.
pub fn export(
    data_dir: &Path,
    out: &Path,
    clock: Clock,
    stop: &AtomicBool,
) -> Result<Exported, ExportError> {
    let identity = Identity::load(data_dir)
        .map_err(|source| ExportError::Identity { data: data_dir.to_owned(), source })?;
    export_of(identity.device(), identity.signing_key(), data_dir, out, clock, stop)
}

/// The same of a device that is known.
pub(super) fn export_of(
    device: &DeviceId,
    key: Arc<SigningKey>,
    data_dir: &Path,
    out: &Path,
    clock: Clock,
    stop: &AtomicBool,
) -> Result<Exported, ExportError> {
    let path = data_dir.join(FILE);
    if !path.exists() {
        return Err(ExportError::None { path });
    }
    if out.exists() {
        return Err(ExportError::Exists { path: out.to_owned() });
    }
    if is_in_use(&path) {
        return Err(ExportError::InUse { path });
    }
    let beside = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let beside = beside.unwrap_or(Path::new("."));
    let scratch = tempfile::Builder::new()
        .prefix(".outbox-export-")
        .tempdir_in(beside)
        .map_err(|source| DurableError::io("make a folder in", beside, source))?;
    let copy = copy(&path, scratch.path())?;
    let export = Export { path, device: device.clone(), now: clock.now(), stop };
    let (mut db, meta) = schema::open(&copy, &export.device, export.now)
        .map_err(|unusable| unusable.at(&export.path))?;
    let shared = Arc::new(Shared::new(clock));
    let writer = Writer::of(meta, device.clone(), key, shared);
    export.ready(&mut db, writer, meta).map_err(|error| export.failed(error))?;
    let part = scratch.path().join("export");
    let exported = export.write(&db, &part, out)?;
    durable::rename(&part, out)?;
    Ok(exported)
}

/// Whether a process has the file open. It cannot be asked of a file on a disk that is read-only, which
/// no agent uses.
fn is_in_use(path: &Path) -> bool {
    let ask = || -> rusqlite::Result<()> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(BUSY_WAIT)?;
        // No file of shared memory is made beside it.
        db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    ask().is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

/// Copies the outbox and its log to `folder`.
fn copy(path: &Path, folder: &Path) -> Result<PathBuf, DurableError> {
    let to = folder.join(FILE);
    for suffix in ["", "-wal"] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let from = with(path);
        if from.exists() {
            fs::copy(&from, with(&to)).map_err(|error| DurableError::io("copy", &from, error))?;
        }
    }
    Ok(to)
}

struct Export<'a> {
    /// The outbox, for errors.
    path: PathBuf,
    device: DeviceId,
    now: UnixMillis,
    stop: &'a AtomicBool,
}

/// Why a step on the copy failed.
enum Failed {
    Step(StepError),
    Stopped,
}

impl From<StepError> for Failed {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Step(error.into())
    }
}

impl Export<'_> {
    /// Makes each row what it would be when it is sent.
    fn ready(&self, db: &mut Connection, mut writer: Writer, mut meta: Meta) -> Result<(), Failed> {
        let tx = db.transaction()?;
        let mut last = 0;
        let next = "SELECT id, EXISTS (SELECT 1 FROM payload WHERE item = id) FROM item
                    WHERE id > ?1 ORDER BY id LIMIT 1";
        while let Some((id, is_uploaded)) = tx
            .prepare_cached(next)?
            .query_row([last], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)))
            .optional()?
        {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Failed::Stopped);
            }
            if is_uploaded {
                writer.intact(&tx, &mut meta, id)?;
            } else {
                writer.offer(&tx, &mut meta, id)?;
            }
            last = id;
        }
        Ok(tx.commit()?)
    }

    fn write(&self, db: &Connection, part: &Path, out: &Path) -> Result<Exported, ExportError> {
        let rows = |source| ExportError::Rows { path: self.path.clone(), source };
        let io = |source| ExportError::from(DurableError::io("write", out, source));
        let (records, gaps) = db
            .query_row("SELECT count(*), coalesce(sum(kind = 1), 0) FROM item", [], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
            })
            .map_err(rows)?;
        let head = Head::new(self.device.clone(), self.now, records, records - gaps);
        let mut file = BufWriter::new(File::create(part).map_err(io)?);
        file.write_all(head.line().as_bytes()).map_err(io)?;
        let mut select = db
            .prepare(
                "SELECT kind, message, bytes FROM item LEFT JOIN payload ON item = id ORDER BY id",
            )
            .map_err(rows)?;
        let mut found = select.query([]).map_err(rows)?;
        let (mut at, mut said) = (0, Instant::now());
        while let Some(row) = found.next().map_err(rows)? {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ExportError::Stopped);
            }
            if said.elapsed() > PROGRESS {
                said = Instant::now();
                tracing::info!(written = at, of = records, "exporting");
            }
            at += 1;
            let kind = if row.get::<_, i64>(0).map_err(rows)? == GAP {
                RecordKind::Gap
            } else {
                RecordKind::Sample
            };
            let message: Vec<u8> = row.get(1).map_err(rows)?;
            let payload: Option<Vec<u8>> = row.get(2).map_err(rows)?;
            let payload = payload.unwrap_or_default();
            let record = Record { kind, message: &message, payload: &payload };
            let head = record
                .head(at)
                .map_err(|source| ExportError::Record { path: self.path.clone(), source })?;
            [&head[..], &message, &payload]
                .iter()
                .try_for_each(|bytes| file.write_all(bytes))
                .map_err(io)?;
        }
        let file = file.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let (device, file) = (self.device.clone(), out.to_owned());
        Ok(Exported { device, file, samples: records - gaps, gaps, bytes })
    }

    fn failed(&self, error: Failed) -> ExportError {
        match error {
            Failed::Stopped => ExportError::Stopped,
            Failed::Step(StepError::Outbox(error)) => error.into(),
            Failed::Step(StepError::Sql(source)) => {
                ExportError::Rows { path: self.path.clone(), source }
            }
        }
    }
}
