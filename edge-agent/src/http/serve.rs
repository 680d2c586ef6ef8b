//! The connections of the local port: few, short, and none that keeps others out.
//!
//! A connection carries one request. Its header has [`HEADER`] to come, all of it [`WHOLE`]. At most
//! [`CONNECTIONS`] are open: one more closes the oldest, so that idle ones neither use up the
//! process's descriptors nor keep a monitor or `edge-agent status` out.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::shutdown::{Shutdown, reached};

/// Connections that are open at once: a monitor or two and a few people.
pub(super) const CONNECTIONS: usize = 32;

/// How long the header of a request may take; on this machine it comes at once.
const HEADER: Duration = Duration::from_secs(5);

/// How long a connection lasts at most.
const WHOLE: Duration = Duration::from_secs(15);

/// The longest header, in bytes.
const HEADER_BYTES: usize = 16 * 1024;

/// How long answers under way may take at the end.
const DRAIN: Duration = Duration::from_secs(1);

/// The wait after the system gave no connection, for want of descriptors for instance.
const AGAIN: Duration = Duration::from_millis(100);

/// Serves until the signal says [`Shutdown::Now`].
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    mut signal: watch::Receiver<Shutdown>,
) {
    let (mut tasks, mut open) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
    loop {
        // Cancel-safe: a connection is accepted or stays in the queue; the others only observe.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    while open.len() >= CONNECTIONS && let Some(oldest) = open.pop_front() {
                        oldest.abort();
                    }
                    open.push_back(tasks.spawn(connection(stream, router.clone())));
                }
                Err(error) => {
                    tracing::debug!(%error, "the local port takes no connection now");
                    tokio::time::sleep(AGAIN).await;
                }
            },
            Some(_) = tasks.join_next() => open.retain(|task| !task.is_finished()),
            () = reached(&mut signal, Shutdown::Now) => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
}

async fn connection(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(WHOLE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of the local port broke"),
        Err(_) => tracing::debug!("a connection of the local port took too long"),
    }
}
