//! What a command prints: one JSON document with `--json`, text for people otherwise.

use anyhow::Context as _;
use fleetloop_observe::output;
use serde::Serialize;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tables and sentences.
    Human,
    /// The API's document.
    Json,
}

impl Output {
    /// Prints `value` as JSON, or what `human` makes of it.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let text = match self {
            Self::Human => human(value),
            Self::Json => {
                serde_json::to_string(value).context("cannot write the answer as JSON")?
            }
        };
        output::print(&text).context("cannot write to standard output")
    }
}
