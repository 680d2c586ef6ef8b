//! The hub's memory: one SQLite database, and files by content hash beside it.
//!
//! Invariants: one thread writes ([`writer`]) and answers only after the commit is on disk (WAL,
//! `synchronous=FULL`, foreign keys on); readers have connections of their own and never run on a
//! tokio worker; a database of another schema is refused and left as it is. SQL lives in this folder
//! only, the tables in `schema.sql`.
//!
//! Encodings: digests are 32-byte BLOBs, times are INTEGER milliseconds since 1970, `u64`
//! identities (epoch, sequence) are the INTEGER of the same 64 bits ([`as_sql`], [`from_sql`]),
//! structures are JSON TEXT.

pub mod audit;
pub mod chain;
pub mod clones;
pub mod datasets;
pub mod desired;
pub mod devices;
pub mod findings;
pub mod imports;
pub mod ingest;
pub mod jobs;
pub mod labels;
pub mod numbers;
pub mod payloads;
pub mod registry;
pub mod releases;
pub mod removal;
pub mod replace;
pub mod reports;
pub mod restores;
pub mod rollouts;
pub mod samples;
pub mod sessions;
pub mod sketches;
pub mod strangers;
pub mod tokens;
pub mod uploads;
pub mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetloop_protocol::Digest;
use rusqlite::{Connection, OpenFlags, Transaction};
use tokio::sync::Semaphore;

pub use audit::audit;
use writer::Writer;

/// The database's file name within the data directory.
pub const DATABASE: &str = "hub.db";

/// Read connections: two for people, two for programs; whoever comes fifth waits.
const READERS: usize = 4;

/// How long a connection waits for a lock that a checkpoint or a backup holds.
const BUSY: Duration = Duration::from_secs(10);

/// The tables.
const SCHEMA: &str = include_str!("schema.sql");

/// The version of [`SCHEMA`], which the database keeps as SQLite's `user_version`.
const SCHEMA_VERSION: u32 = 1;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or has less free than the configured floor.
    #[error(
        "cannot store {what}: the disk has too little space left; free some or lower `limits.disk_floor_bytes`"
    )]
    Full {
        /// What was to be stored.
        what: String,
    },
    /// The database failed.
    #[error("cannot use the hub's database")]
    Sqlite(#[source] rusqlite::Error),
    /// The group could not be committed; nothing of it is stored.
    #[error("cannot commit to the hub's database")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// The group was rolled back because of another operation in it; try again.
    #[error("cannot commit to the hub's database: another operation undid the group; try again")]
    GroupLost,
    /// There is no such thing.
    #[error("cannot find {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// It contradicts what is stored.
    #[error("{what}")]
    Conflict {
        /// Operation, object and next step.
        what: String,
    },
    /// It breaks a rule of the store.
    #[error("{what}")]
    Invalid {
        /// Operation, object and next step.
        what: String,
    },
    /// Bytes are not what their digest says.
    #[error("{what} does not have the digest {expected}")]
    Mismatch {
        /// What.
        what: String,
        /// The digest it should have.
        expected: Digest,
    },
    /// A file could not be read or written.
    #[error("cannot {what}")]
    Io {
        /// What was tried, the path included.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The object store failed.
    #[error("cannot {what}")]
    Object {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// An operation panicked; it was undone.
    #[error("cannot finish a database operation: it panicked and was undone")]
    Panicked,
    /// The hub is stopping, or the writer could not begin.
    #[error("cannot reach the hub's database: it is closing")]
    Closed,
    /// Written by another build.
    #[error(
        "cannot open {path}: it has schema {found}, and this fleet-hub reads schema {SCHEMA_VERSION}; run the fleet-hub that wrote it"
    )]
    OtherSchema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
}

impl StoreError {
    /// `NotFound` for a thing and its name.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    /// A row that exists but cannot be decoded: damage, or a bug.
    pub fn damaged(what: impl std::fmt::Display) -> Self {
        Self::Invalid { what: format!("cannot read {what} from the database: the row is damaged") }
    }

    /// Whether trying the same again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::GroupLost | Self::Closed | Self::Commit(_))
    }

    fn of_commit(source: Arc<rusqlite::Error>) -> Self {
        if is_full(&source) { Self::Full { what: "a row".into() } } else { Self::Commit(source) }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if is_full(&error) { Self::Full { what: "a row".into() } } else { Self::Sqlite(error) }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

/// The INTEGER of the same 64 bits; equality holds, order only below 2^63.
pub const fn as_sql(value: u64) -> i64 {
    value as i64
}

/// The `u64` of an INTEGER written with [`as_sql`].
pub const fn from_sql(value: i64) -> u64 {
    value as u64
}

/// A digest from a BLOB column of a row.
///
/// # Errors
/// The column is not a BLOB of 32 bytes.
pub fn digest_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get::<_, [u8; 32]>(column).map(Digest::from_bytes)
}

/// A handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: Arc<Readers>,
}

struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    path: PathBuf,
}

impl Store {
    /// Opens (or makes) the database in `data_dir` and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened, or another build wrote it ([`StoreError::OtherSchema`]).
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join(DATABASE);
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY)?;
        prepare(&mut connection, &path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let readers =
            Readers { idle: Mutex::new(Vec::new()), permits: Semaphore::new(READERS), path };
        Ok(Self { writer: Writer::start(connection)?, readers: Arc::new(readers) })
    }

    /// Runs `operation` in a transaction shared with others, in its own savepoint, and returns its
    /// result once it is on disk. An error undoes this operation only.
    ///
    /// # Errors
    /// The operation's own, or the commit's: then nothing of it is stored.
    pub async fn write<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.writer.write(operation).await
    }

    /// Runs `query` on a read-only connection, off the tokio workers, over one snapshot.
    ///
    /// # Errors
    /// The query's own, or no connection could be opened.
    pub async fn read<R: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let readers = Arc::clone(&self.readers);
        let _permit = self.readers.permits.acquire().await.map_err(|_| StoreError::Closed)?;
        tokio::task::spawn_blocking(move || readers.query(query))
            .await
            .map_err(|_| StoreError::Panicked)?
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.readers.path
    }
}

impl Readers {
    fn query<R>(
        &self,
        query: impl FnOnce(&Connection) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        // One snapshot for all statements of the query; nothing to commit afterwards.
        let tx = connection.unchecked_transaction()?;
        let result = query(&tx);
        tx.finish()?;
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(connection);
        result
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    }
}

/// Makes the tables of a new database, in one transaction: a crash before its commit leaves none.
/// A database of another schema is refused before anything is written to it.
fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let tx = connection.transaction()?;
    let is_new = tx.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
    if is_new {
        tx.execute_batch(SCHEMA)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    let found: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found != SCHEMA_VERSION {
        return Err(StoreError::OtherSchema { path: path.to_owned(), found });
    }
    Ok(tx.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_another_schema_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let db = Connection::open(&path).unwrap();
        for found in [0, SCHEMA_VERSION + 1] {
            db.execute_batch("CREATE TABLE IF NOT EXISTS theirs (one INTEGER)").unwrap();
            db.pragma_update(None, "user_version", found).unwrap();
            let before = std::fs::read(&path).unwrap();
            let error = Store::open(folder.path()).err().unwrap();
            assert!(matches!(error, StoreError::OtherSchema { found: f, .. } if f == found));
            let text = error.to_string();
            assert!(text.contains("hub.db") && text.contains("run the fleet-hub that"), "{text}");
            assert_eq!(std::fs::read(&path).unwrap(), before);
        }
    }

    #[test]
    fn a_database_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            Store::open(folder.path()).unwrap();
        }
    }
}
