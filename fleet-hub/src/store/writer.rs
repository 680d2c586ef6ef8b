//! The writer: one thread owns the only connection that writes.
//!
//! Group commit: operations that wait are put into one transaction, at most [`GROUP_OPERATIONS`] of
//! them or [`GROUP_TIME`] of work, each in a savepoint of its own, so that one that fails takes
//! nothing with it. Nobody waits for a group to fill: while a commit syncs, the next group gathers
//! in the queue. An operation is answered only after its group is on disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// The most operations in one transaction: enough to make one sync cheap for each, few enough that
/// a damaged group costs little to send again.
pub const GROUP_OPERATIONS: usize = 256;

/// The most time spent gathering one transaction before it is committed.
pub const GROUP_TIME: Duration = Duration::from_millis(20);

/// Operations that wait for the writer: four groups. Whoever comes when it is full waits, which is
/// how a slow disk is felt upstream.
const QUEUE: usize = 4 * GROUP_OPERATIONS;

/// An operation. It runs in its savepoint and returns how to answer once the group's fate is known.
type Operation = Box<dyn FnOnce(&Transaction<'_>) -> Answer + Send>;

/// Called with the group's fate.
type Answer = Box<dyn FnOnce(Result<(), Arc<rusqlite::Error>>) + Send>;

/// The way to the writer thread. It ends when the last handle is dropped and the queue is empty.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Operation>,
}

impl Writer {
    /// Starts the writer thread over `connection`.
    pub(super) fn start(connection: Connection) -> Result<Self, StoreError> {
        let (queue, operations) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(connection, operations))
            .map_err(|source| StoreError::Io {
                what: "start the store's writer thread".into(),
                source,
            })?;
        Ok(Self { queue })
    }

    /// Runs `operation` in the next group and answers after its commit.
    pub(super) async fn write<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (reply, answer) = oneshot::channel();
        let boxed: Operation = Box::new(move |tx| {
            let result = in_savepoint(tx, operation);
            Box::new(move |fate| {
                let outcome = match (result, fate) {
                    (Err(error), _) => Err(error),
                    (Ok(value), Ok(())) => Ok(value),
                    (Ok(_), Err(source)) => Err(StoreError::of_commit(source)),
                };
                // The asker may have gone; what is stored is stored.
                let _ = reply.send(outcome);
            })
        });
        self.queue.send(boxed).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Runs one operation so that its failure, even a panic, undoes only itself.
fn in_savepoint<R>(
    tx: &Transaction<'_>,
    operation: impl FnOnce(&Transaction<'_>) -> Result<R, StoreError>,
) -> Result<R, StoreError> {
    if tx.is_autocommit() {
        // SQLite rolled the whole transaction back (disk full, I/O error): nothing may run outside.
        return Err(StoreError::GroupLost);
    }
    tx.execute_batch("SAVEPOINT operation")?;
    let result =
        catch_unwind(AssertUnwindSafe(|| operation(tx))).unwrap_or(Err(StoreError::Panicked));
    if tx.is_autocommit() {
        return Err(result.err().unwrap_or(StoreError::GroupLost));
    }
    match result {
        Ok(value) => {
            tx.execute_batch("RELEASE operation")?;
            Ok(value)
        }
        Err(error) => {
            tx.execute_batch("ROLLBACK TO operation; RELEASE operation")?;
            Err(error)
        }
    }
}

fn run(mut connection: Connection, mut operations: mpsc::Receiver<Operation>) {
    while let Some(first) = operations.blocking_recv() {
        let started = Instant::now();
        let mut group = vec![first];
        let tx = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(tx) => tx,
            Err(error) => {
                tracing::error!(%error, "cannot begin a transaction");
                // Dropping the operation drops its reply channel: the asker hears `Closed`.
                continue;
            }
        };
        let mut answers: Vec<Answer> = Vec::new();
        while let Some(operation) = group.pop().or_else(|| {
            let room = answers.len() < GROUP_OPERATIONS && started.elapsed() < GROUP_TIME;
            room.then(|| operations.try_recv().ok()).flatten()
        }) {
            answers.push(operation(&tx));
        }
        let fate = commit(tx).map_err(Arc::new);
        for answer in answers {
            answer(fate.clone());
        }
    }
}

fn commit(tx: Transaction<'_>) -> Result<(), rusqlite::Error> {
    if tx.is_autocommit() {
        // Rolled back under us; a COMMIT now would succeed and mean nothing.
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
            Some("the transaction was rolled back".into()),
        ));
    }
    tx.commit()
}
