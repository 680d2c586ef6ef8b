//! Payloads too large for a message: uploaded to the hub one at a time, beside the session.
//!
//! One task a connection. It takes a payload from the outbox, sends it over HTTPS (mutual TLS) and
//! hands the message that names it to the session. Whatever interrupts it, the outbox offers the row
//! again, and what the hub has by then is not sent a second time.
//!
//! Limits: one payload in memory; no progress for [`STALLED`] ends an attempt; a failure waits as
//! [`Backoff`] says, a payload the hub will not have for [`REFUSED`].

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fleetloop_protocol::backoff::{Backoff, spread};
use fleetloop_protocol::upload::{self, SALT_HEADER};
use futures::StreamExt as _;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::chain::chain;
use crate::clock::Clock;
use crate::contacts::Contacts;
use crate::identity::Identity;
use crate::outbox::{Outbox, Outgoing, Upload};
use crate::tls;

/// Bytes handed to the connection at once: what progress is measured in.
const PIECE: usize = 64 * 1024;

/// How long the hub may take no piece, or have all and not answer. It covers what the kernel and a
/// slow link hold of the pieces before.
const STALLED: Duration = Duration::from_secs(60);

/// How long a payload waits that the hub refused as it is.
const REFUSED: Duration = Duration::from_secs(3600);

/// How often an empty outbox is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Payloads on their way; they stop with this value.
pub(super) struct Uploads {
    messages: mpsc::Receiver<Outgoing>,
    task: JoinHandle<()>,
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Uploads {
    /// Starts the task.
    pub(super) fn start(
        identity: &Identity,
        clock: &Clock,
        outbox: Outbox,
    ) -> Result<Self, String> {
        let client = Client::new(identity, clock).map_err(|error| chain(&error))?;
        // One: the next payload is taken when the session has taken the message before.
        let (sender, messages) = mpsc::channel(1);
        let work = async move { run(&client, &outbox, &sender).await };
        let task = tokio::spawn(work.in_current_span());
        Ok(Self { messages, task })
    }

    /// Ends, so that nothing is taken from the outbox any more: what the next connection is offered
    /// would lack what this one took and nobody sends.
    pub(super) async fn end(mut self) {
        self.task.abort();
        // Cancelled is what it should be.
        drop((&mut self.task).await);
    }
}

/// The next message whose payload is at the hub; never comes without a connection. Cancel-safe.
pub(super) async fn next(uploads: &mut Option<Uploads>) -> Option<Outgoing> {
    match uploads {
        Some(uploads) => uploads.messages.recv().await,
        None => std::future::pending().await,
    }
}

/// Uploads what the outbox has until the session or the outbox is gone.
async fn run(client: &Client, outbox: &Outbox, messages: &mpsc::Sender<Outgoing>) {
    let mut backoff = Backoff::default();
    loop {
        let Ok(next) = outbox.next_upload().await else {
            // The disk; the outbox opens it again by itself.
            tokio::time::sleep(backoff.next_wait()).await;
            continue;
        };
        let Some(upload) = next else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let (id, named) = (upload.id, upload.commitment);
        match client.send(upload).await {
            Ok(()) => {
                backoff.reset();
                let Ok(message) = outbox.uploaded(id).await else { continue };
                if let Some(message) = message
                    && messages.send(message).await.is_err()
                {
                    return;
                }
            }
            Err(Failed::Refused { status }) => {
                tracing::error!(%named, %status, "the hub refuses a payload; it waits an hour");
                outbox.postpone(id, spread(REFUSED)).await.ok();
            }
            Err(Failed::ForNow { reason }) => {
                let wait = backoff.next_wait();
                tracing::warn!(%named, reason, wait_s = wait.as_secs(), "a payload is not uploaded");
                outbox.postpone(id, wait).await.ok();
                // The hub or the way to it: the next payload would meet the same.
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Why a payload is not at the hub.
#[derive(Debug)]
enum Failed {
    /// The hub will not have it.
    Refused { status: StatusCode },
    /// The way, or the hub's room.
    ForNow { reason: String },
}

/// The hub's device listener, for sending to it.
struct Client {
    http: reqwest::Client,
    contacts: Contacts,
    stalled: Duration,
}

impl Client {
    fn new(identity: &Identity, clock: &Clock) -> Result<Self, tls::TlsError> {
        let http = tls::upload_client(tls::device_config(identity, clock)?)?;
        Ok(Self { http, contacts: identity.contacts().clone(), stalled: STALLED })
    }

    /// Sends a payload unless the hub has it; success means that it is on the hub's disk.
    ///
    /// Cancel-safe: the hub keeps nothing of an upload that was cut.
    async fn send(&self, upload: Upload) -> Result<(), Failed> {
        let base = self.contacts.device_url();
        let url = format!("{base}{}", upload::path(upload.commitment));
        let asked = self.http.request(Method::HEAD, &url).timeout(self.stalled).send().await;
        match asked.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => return Ok(()),
            Ok(StatusCode::NOT_FOUND) => {}
            Ok(status) => return Err(failed(status)),
            Err(error) => {
                self.contacts.url_failed(&base);
                return Err(Failed::ForNow { reason: chain(&error) });
            }
        }
        let payload = Bytes::from(upload.payload);
        let sent = Arc::new(AtomicUsize::new(0));
        let request = self
            .http
            .put(&url)
            .header(SALT_HEADER, upload::salt_text(upload.salt))
            .header(CONTENT_LENGTH, payload.len())
            .body(pieces(payload, Arc::clone(&sent)));
        // Cancel-safe: whichever ends first, the request is not used again.
        let answer = tokio::select! {
            answer = request.send() => answer.map_err(|e| Failed::ForNow { reason: chain(&e) })?,
            () = no_progress(&sent, self.stalled) => {
                let reason = format!("no progress for {:?}", self.stalled);
                return Err(Failed::ForNow { reason });
            }
        };
        if answer.status().is_success() { Ok(()) } else { Err(failed(answer.status())) }
    }
}

fn failed(status: StatusCode) -> Failed {
    let refused = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE];
    if refused.contains(&status) {
        Failed::Refused { status }
    } else {
        Failed::ForNow { reason: format!("the hub answered {status}") }
    }
}

/// The payload in pieces; `sent` counts the bytes that the connection took.
fn pieces(payload: Bytes, sent: Arc<AtomicUsize>) -> reqwest::Body {
    let rest = futures::stream::unfold(payload, |mut rest| async move {
        let piece = rest.split_to(rest.len().min(PIECE));
        (!piece.is_empty()).then_some((piece, rest))
    });
    reqwest::Body::wrap_stream(rest.map(move |piece| {
        sent.fetch_add(piece.len(), Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(piece)
    }))
}

/// Ends when `sent` has not grown for `limit`.
async fn no_progress(sent: &AtomicUsize, limit: Duration) {
    let mut before = None;
    loop {
        let now = Some(sent.load(Ordering::Relaxed));
        if now == before {
            return;
        }
        before = now;
        tokio::time::sleep(limit).await;
    }
}
