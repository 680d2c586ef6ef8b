//! Progress on a terminal: what is done stays above, what is under way moves below.

use std::cell::RefCell;
use std::time::Duration;

use hil_tests::progress::{Progress, tell};
use indicatif::{ProgressBar, ProgressStyle};

/// The bar's length in steps.
const STEPS: u64 = 1000;

/// A bar at the bottom of the terminal.
pub struct Screen {
    bar: RefCell<ProgressBar>,
}

impl Default for Screen {
    fn default() -> Self {
        Self { bar: RefCell::new(ProgressBar::hidden()) }
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse is a bare bar; the ones below do.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Screen {
    fn stage(&self, number: usize, of: usize, name: &str) {
        self.done();
        tell(&format!("[{number}/{of}] {name}"));
        let bar = ProgressBar::new(STEPS);
        bar.set_style(style("      {spinner} {elapsed:>4} {wide_msg}"));
        bar.enable_steady_tick(Duration::from_millis(120));
        self.bar.replace(bar);
    }

    fn note(&self, line: &str) {
        self.bar.borrow().println(format!("      {line}"));
    }

    fn at(&self, fraction: Option<f32>, text: &str) {
        let bar = self.bar.borrow();
        if let Some(fraction) = fraction {
            bar.set_style(style("      {spinner} {elapsed:>4} [{bar:30}] {wide_msg}"));
            bar.set_position((fraction.clamp(0.0, 1.0) * STEPS as f32) as u64);
        }
        bar.set_message(text.to_owned());
    }

    fn done(&self) {
        self.bar.borrow().finish_and_clear();
    }
}
