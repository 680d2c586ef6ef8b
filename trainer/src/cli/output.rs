//! What a command prints: one JSON object with `--json`, text for people otherwise.

use anyhow::Context as _;
use serde::Serialize;

/// Prints `value` as JSON, or what `human` says.
///
/// # Errors
/// Standard output cannot be written.
pub fn print<T: Serialize>(
    json: bool,
    value: &T,
    human: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string(value)? } else { human() };
    fleetloop_observe::output::print(&text).context("cannot write to standard output")
}
