//! Answers of the hub, read up to a limit.

use fleetloop_observe::text::visible;
use fleetloop_protocol::api::ApiError;
use fleetloop_protocol::limits::shorten;
use reqwest::Response;

/// An answer that was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The connection broke.
    Broken(reqwest::Error),
    /// It is longer than it may be.
    TooLong,
}

/// The whole body, at most `limit` bytes.
pub(crate) async fn body(response: &mut Response, limit: u64) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > limit {
            return Err(Unread::TooLong);
        }
    }
    Ok(body)
}

/// What an error's body says, in one short line.
pub(crate) fn detail(body: &[u8]) -> String {
    let text = serde_json::from_slice::<ApiError>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |error| error.message);
    shorten(&visible(text.trim()))
}
