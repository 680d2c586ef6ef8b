//! An error and its causes in one line, for logs, reports and `check`.

use std::error::Error;

/// `what failed: why: why that`, no longer than a report may hold.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    fleetloop_protocol::limits::shorten(&text)
}
