//! A model that a worker runs comes from outside: a run of it over one batch has a time limit.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use fleetloop_models::session::{RunLimit, Session};

/// How long one batch may take; then the run is ended, and the job fails with the reason.
pub const RUN: Duration = Duration::from_secs(600);

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Ends the looking when it is dropped.
pub struct Limited(#[expect(dead_code, reason = "its end is the signal")] SyncSender<()>);

/// Has the runs of `session` ended that take longer than [`RUN`], for as long as what is given back lives.
/// Without a thread to look they are not.
pub fn limit_runs(session: &mut Session) -> Option<Limited> {
    let limit = RunLimit::new().ok()?;
    session.set_limit(limit.clone());
    // Nothing is ever sent: the sender's end is the signal.
    let (limited, ended) = sync_channel(1);
    let look = move || {
        while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            limit.look(RUN);
        }
    };
    std::thread::Builder::new().name("limit".into()).spawn(look).ok()?;
    Some(Limited(limited))
}
