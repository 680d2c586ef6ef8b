//! The rest of a request that was answered before all of it was read.
//!
//! A server that refuses an upload at its first line and closes the connection is often not heard:
//! the client still writes, its system resets the connection, and the answer is gone; or a client
//! that did hear it sends its next request on a connection that is about to close. So what is left of
//! a body is read, and thrown away, before the answer goes out (RFC 9112, section 9.6, says why).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CONNECTION, EXPECT};
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt as _;

/// How long the rest may take.
const WITHIN: Duration = Duration::from_secs(60);

/// How long a client may be silent in it.
const SILENCE: Duration = Duration::from_secs(2);

/// A body, read by a handler for as long as it likes and by [`read_first`] from there on.
type Shared = Arc<Mutex<BodyDataStream>>;

/// Answers when the request has been read to its end. A connection on which it does not end in time
/// is closed after the answer.
pub(super) async fn read_first(request: Request, next: Next) -> Response {
    // Who asks before it sends is told by the answer.
    let asks = request.headers().contains_key(EXPECT);
    if asks || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let body: Shared = Arc::new(Mutex::new(body.into_data_stream()));
    let handlers = Request::from_parts(head, Body::from_stream(pieces(&body)));
    let mut response = next.run(handlers).await;
    if !ends(&body).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the body came to its end, or broke off, in time.
async fn ends(body: &Shared) -> bool {
    let mut rest = pieces(body);
    let reading = async {
        loop {
            match tokio::time::timeout(SILENCE, rest.next()).await {
                Ok(Some(Ok(_))) => {}
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    };
    tokio::time::timeout(WITHIN, reading).await.unwrap_or(false)
}

fn pieces(
    body: &Shared,
) -> impl futures::Stream<Item = <BodyDataStream as futures::Stream>::Item> + use<> {
    let body = Arc::clone(body);
    futures::stream::poll_fn(move |context| {
        body.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::StatusCode;
    use axum::routing::put;
    use axum::{Router, middleware};
    use bytes::Bytes;
    use tower::ServiceExt as _;

    use super::*;

    const PIECES: usize = 9;

    /// How many pieces of a body were read, at a handler that refuses without reading any.
    async fn read_of(request: axum::http::request::Builder) -> usize {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let pieces = futures::stream::repeat(Bytes::from_static(b"piece")).take(PIECES);
        let body = Body::from_stream(pieces.map(move |piece| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(piece)
        }));
        let router = Router::new()
            .route("/", put(|| async { StatusCode::BAD_REQUEST }))
            .layer(middleware::from_fn(read_first));
        let answer = router.oneshot(request.method("PUT").body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert!(!answer.headers().contains_key(CONNECTION));
        read.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_refused_request_is_read_to_its_end_unless_it_asked_first() {
        assert_eq!(read_of(Request::builder()).await, PIECES);
        // Reading is what tells who asks to go on.
        assert_eq!(read_of(Request::builder().header(EXPECT, "100-continue")).await, 0);
    }
}
