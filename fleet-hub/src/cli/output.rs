//! What a command prints: one JSON document with `--json`, text for people otherwise.

use std::io::Write as _;

use anyhow::Context as _;
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
                serde_json::to_string(value).context("cannot write the answer as JSON")? + "\n"
            }
        };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // The reader of a pipe (`| head`) has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write to standard output"),
        }
    }
}
