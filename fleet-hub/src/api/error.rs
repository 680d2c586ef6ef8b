//! What the API answers when it cannot do what was asked: a status, a stable word and a sentence.
//!
//! Every error of the API is an [`ApiError`] as JSON, those of the framework (a body that is no
//! JSON, a path that is none) included. The sentence names the operation, the object and the next
//! step. What went wrong inside the hub is logged with its chain of causes and answered only as
//! `internal`: a caller learns nothing about the hub's files.

use std::error::Error;

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use fleetloop_protocol::api::ApiError;

use crate::door::Later;
use crate::store::StoreError;

/// An answer that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", body.message)]
pub struct Failure {
    status: StatusCode,
    body: ApiError,
    /// When it may be tried again, for the header `Retry-After`.
    retry_after_s: Option<u64>,
}

impl Failure {
    /// A failure of that status, with a stable `code` for programs and a sentence for people.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let body = ApiError { code: code.to_owned(), message: message.into() };
        Self { status, body, retry_after_s: None }
    }

    /// 400: the request is not one that can be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// 401: no token, or one the hub does not know.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 403: the token's role may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 409: it does not fit the state the hub is in.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 410: it was here and was removed.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "gone", message)
    }

    /// 413: over a limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 429: too many wrong credentials; a right one would have been taken.
    pub fn later(later: Later) -> Self {
        let Later { seconds } = later;
        let message = format!(
            "cannot take this credential: it is wrong, and so were many from your address; try again in {seconds} s with a right one"
        );
        let failure = Self::new(StatusCode::TOO_MANY_REQUESTS, "later", message);
        Self { retry_after_s: Some(seconds), ..failure }
    }

    /// 507: the hub's disk is above its floor.
    pub fn full(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "full", message)
    }

    /// 500: `operation` failed inside the hub; the cause is logged, not answered.
    pub fn internal(operation: &str, cause: &(dyn Error + 'static)) -> Self {
        tracing::error!(operation, error = %chain(cause), "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("cannot {operation}: the hub failed; see its log"),
        )
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is answered.
    pub fn body(&self) -> &ApiError {
        &self.body
    }
}

/// An error and its causes, joined by colons.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Later> for Failure {
    fn from(later: Later) -> Self {
        Self::later(later)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match &error {
            StoreError::NotFound { .. } => Self::not_found(text),
            StoreError::Conflict { .. } => Self::conflict(text),
            StoreError::Invalid { .. } => Self::invalid(text),
            StoreError::Mismatch { .. } => Self::new(StatusCode::BAD_REQUEST, "mismatch", text),
            StoreError::Full { .. } => Self::full(text),
            busy if busy.is_transient() => {
                tracing::warn!(error = %chain(busy), "request not served");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text)
            }
            other => Self::internal("use the hub's store", other),
        }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::from_rejection("body", rejection.status(), &rejection.body_text())
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        Self::from_rejection("body", rejection.status(), &rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::from_rejection("query", rejection.status(), &rejection.body_text())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::from_rejection("path", rejection.status(), &rejection.body_text())
    }
}

impl Failure {
    fn from_rejection(part: &str, status: StatusCode, text: &str) -> Self {
        let code = if status == StatusCode::PAYLOAD_TOO_LARGE { "too_large" } else { "invalid" };
        Self::new(status, code, format!("cannot read the request's {part}: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_failure_tells_the_caller_nothing_of_its_cause() {
        let cause = std::io::Error::other("/var/lib/hub/secret is gone");
        let failure = Failure::internal("list devices", &cause);
        assert_eq!(failure.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!failure.body().message.contains("secret"), "{failure}");
    }
}
