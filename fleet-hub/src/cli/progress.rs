//! Progress of what takes longer than a moment: a bar on a terminal, a line at each new phase
//! elsewhere. It goes to stderr, so that stdout holds the result only.

use std::io::IsTerminal as _;
use std::time::Duration;

use fleetloop_observe::text::visible;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar under way.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    said: String,
}

impl Progress {
    /// A bar of `total` steps.
    pub fn new(what: &str, total: u64) -> Self {
        Self::with_template(what, total, "{msg} {wide_bar} {pos}/{len} {eta}")
    }

    /// A bar of bytes.
    pub fn bytes(what: &str, total: Option<u64>) -> Self {
        let template = if total.is_some() {
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}"
        } else {
            "{spinner} {msg} {bytes} {bytes_per_sec}"
        };
        Self::with_template(what, total.unwrap_or(0), template)
    }

    fn with_template(what: &str, total: u64, template: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(total) } else { ProgressBar::hidden() };
        // The templates above are constants; one that is wrong falls back to indicatif's.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let mut progress = Self { bar, terminal, said: String::new() };
        progress.say(what, what);
        progress
    }

    /// Where it stands.
    pub fn set(&mut self, position: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(position);
    }

    /// So much more.
    pub fn add(&mut self, steps: u64) {
        self.bar.inc(steps);
    }

    /// What is being done: `phase` alone where there is no terminal and only when it is new,
    /// `detail` on the bar.
    pub fn say(&mut self, phase: &str, detail: &str) {
        // A worker names its phases.
        self.bar.set_message(visible(detail).into_owned());
        if !self.terminal && self.said != phase {
            eprintln!("{}", visible(phase));
        }
        phase.clone_into(&mut self.said);
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
