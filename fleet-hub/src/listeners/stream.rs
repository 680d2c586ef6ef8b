//! A connection's bytes, watched: what comes is told to the gate, and what is sent must be taken.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use super::gate::Connection;
use super::gate::book::Reason;

/// What a client and the hub say to each other, in clear.
pub(crate) struct Stream {
    inner: TlsStream<TcpStream>,
    connection: Connection,
    /// Runs while the client takes nothing of what it is sent.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(inner: TlsStream<TcpStream>, connection: Connection) -> Self {
        Self { inner, connection, silence: None }
    }

    /// The client's verified certificate (DER), if it showed one.
    pub(super) fn certificate(&self) -> Option<Arc<[u8]>> {
        let certificates = self.inner.get_ref().1.peer_certificates()?;
        Some(certificates.first()?.to_vec().into())
    }

    /// What came of writing; an error when it has waited too long.
    fn taken<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.silence = None;
            return written;
        }
        let within = Duration::from_secs(self.connection.limits().write_silence_s.into());
        let silence =
            self.silence.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + within)));
        ready!(silence.as_mut().poll(context));
        self.connection.ended_by(Reason::Write);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.heard();
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.taken(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.taken(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(context);
        self.taken(shut, context)
    }
}
