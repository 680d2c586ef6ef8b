//! What a scenario tells while it runs.

use std::io::Write as _;

/// Someone who watches. Called from the scenario's thread only.
pub trait Progress {
    /// A part of the scenario begins; `number` counts from 1.
    fn stage(&self, number: usize, of: usize, name: &str);
    /// Something happened that is worth a line.
    fn note(&self, line: &str);
    /// How far the current part is, 0 to 1 where that is known. May be called often.
    fn at(&self, fraction: Option<f32>, text: &str);
    /// The last part is over.
    fn done(&self) {}
}

/// Writes a line where progress goes. Unlike `eprintln` it does not panic when nobody can read it:
/// a terminal that is gone must not end a run in the middle, a signal does that in order.
pub fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// One line a stage and a note, and one every few seconds in between: for logs and pipes.
#[derive(Default)]
pub struct Lines {
    last: std::cell::Cell<Option<std::time::Instant>>,
}

/// How often [`Lines`] tells how far a part is.
const EVERY: std::time::Duration = std::time::Duration::from_secs(5);

impl Progress for Lines {
    fn stage(&self, number: usize, of: usize, name: &str) {
        self.last.set(Some(std::time::Instant::now()));
        tell(&format!("[{number}/{of}] {name}"));
    }

    fn note(&self, line: &str) {
        tell(&format!("      {line}"));
    }

    fn at(&self, _fraction: Option<f32>, text: &str) {
        if self.last.get().is_none_or(|last| last.elapsed() >= EVERY) {
            self.last.set(Some(std::time::Instant::now()));
            tell(&format!("      … {text}"));
        }
    }
}
