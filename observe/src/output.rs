//! What a command line prints as its result.

use std::io::{ErrorKind, Write as _};

/// Writes `text` and the end of its last line to standard output. A reader who has seen enough
/// (`| head`) is no error.
///
/// # Errors
/// Standard output cannot be written, for instance because it is a file on a full disk.
pub fn print(text: &str) -> std::io::Result<()> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes()));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
