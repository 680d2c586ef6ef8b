//! The body of a request, which must come at a pace; and of an answer, whose end is told.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::gate::Connection;
use super::gate::book::{Phase, Reason};
use super::gate::limits::ConnectionLimits;

/// How long a body may still make the hub wait. Only waiting for the client counts, not what the
/// hub does with what came.
#[derive(Debug, Clone, Copy)]
struct Pace {
    silence: Duration,
    bytes_per_s: u64,
    received: u64,
    waited: Duration,
}

impl Pace {
    fn new(limits: &ConnectionLimits) -> Self {
        Self {
            silence: Duration::from_secs(limits.body_silence_s.into()),
            bytes_per_s: limits.body_bytes_per_s.into(),
            received: 0,
            waited: Duration::ZERO,
        }
    }

    /// How long the next piece may take.
    fn allowance(&self) -> Duration {
        let earned = Duration::from_millis(self.received.saturating_mul(1000) / self.bytes_per_s);
        self.silence.saturating_add(earned).saturating_sub(self.waited).min(self.silence)
    }
}

/// A request's body.
pub(super) struct Paced {
    inner: Incoming,
    connection: Connection,
    pace: Pace,
    /// Since when a piece is waited for, and until when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Nothing more is read.
    cut: bool,
}

impl Paced {
    pub(super) fn new(inner: Incoming, connection: Connection) -> Self {
        let pace = Pace::new(connection.limits());
        Self { inner, connection, pace, waiting: None, cut: false }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        if this.cut {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            if let Some((since, _)) = this.waiting.take() {
                this.pace.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame {
                this.pace.received += frame.data_ref().map_or(0, Bytes::len) as u64;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let allowance = this.pace.allowance();
        let (_, over) = this.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + allowance)))
        });
        if over.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.cut = true;
        this.connection.ended_by(Reason::Body);
        let slow = "the body was silent for too long, or slower than limits.connections allow";
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, slow).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body: when it is dropped, the connection waits for the next request.
pub(super) struct Answer {
    inner: axum::body::Body,
    connection: Connection,
}

impl Answer {
    pub(super) fn new(inner: axum::body::Body, connection: Connection) -> Self {
        Self { inner, connection }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.enter(Phase::Idle);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(received: u64, waited_s: u64) -> Pace {
        let limits = ConnectionLimits {
            body_silence_s: 30,
            body_bytes_per_s: 1000,
            ..ConnectionLimits::default()
        };
        Pace { received, waited: Duration::from_secs(waited_s), ..Pace::new(&limits) }
    }

    #[test]
    fn a_body_earns_time_by_its_bytes_and_never_more_silence_than_one() {
        let seconds = Duration::from_secs;
        assert_eq!(pace(0, 0).allowance(), seconds(30));
        assert_eq!(pace(0, 29).allowance(), seconds(1));
        assert_eq!(pace(5_000, 29).allowance(), seconds(6));
        assert_eq!(pace(1_000_000, 0).allowance(), seconds(30));
        // A byte now and then earns nothing worth waiting for.
        assert_eq!(pace(3, 30).allowance(), Duration::from_millis(3));
        // Ten times the least pace may go on for hours.
        assert_eq!(pace(10_000 * 3600, 3600).allowance(), seconds(30));
    }
}
