//! Headers on every answer of the admin listener. What a handler set stays.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::Next;
use axum::response::Response;

use super::host;

/// Nothing may be loaded by what is no page, and nothing may frame it.
const POLICY: &str = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Two years, for this name only: others below it are not the hub's.
const TLS_ONLY: &str = "max-age=63072000";

/// What every answer says. Answers hold tokens, samples and names, so nobody keeps them unless a
/// handler says so.
const ALWAYS: [(HeaderName, &str); 6] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (CACHE_CONTROL, "no-store"),
];

/// Adds the headers.
pub async fn add(request: Request, next: Next) -> Response {
    let host = host::named(request.headers(), request.uri());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    // A browser applies it to every port of the name, so not where plain HTTP is at home.
    if host.is_ok_and(|host| host::is_domain(&host)) {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(TLS_ONLY));
    }
    response
}
