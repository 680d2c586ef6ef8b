//! What a command line prints as its result: text for people, or one JSON document with `--json`.
//!
//! Words from outside may be anywhere in it, so every text goes through [`mod@crate::text`] on its way out.
//! Errors are [`anyhow`]'s, for nobody but a program's `main` meets them.

use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use crate::text;

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tables and sentences.
    Human,
    /// One document.
    Json,
}

impl Output {
    /// What the flag `--json` asks for.
    pub const fn with_json(json: bool) -> Self {
        if json { Self::Json } else { Self::Human }
    }

    /// Prints `value` as JSON, or what `human` makes of it.
    ///
    /// # Errors
    /// As [`print()`].
    pub fn print<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self {
            Self::Human => print(&human(value)),
            Self::Json => {
                let text =
                    serde_json::to_string(value).context("cannot write the answer as JSON")?;
                print(&text::visible_json(&text))
            }
        }
    }
}

/// The text of an error for standard error, with its causes.
pub fn error(error: &anyhow::Error) -> String {
    text::visible_lines(&format!("error: {error:#}")).into_owned()
}

/// Writes [`text::visible_lines`] of `text` and the end of its last line to standard output. A reader who
/// has seen enough
/// (`| head`) is no error.
///
/// # Errors
/// Standard output cannot be written, for instance because it is a file on a full disk.
pub fn print(text: &str) -> anyhow::Result<()> {
    let text = text::visible_lines(text);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes()));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}
