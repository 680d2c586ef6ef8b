//! The table at the end.

use std::fmt::Write as _;

use super::{Figures, Limits};

/// All figures, what each had to be, and the devices one by one.
pub fn render(figures: &Figures, limits: &Limits) -> String {
    let judged = figures.judged(limits);
    let width =
        |of: fn(&str) -> usize, texts: &[&str]| texts.iter().map(|t| of(t)).max().unwrap_or(0);
    let count = |text: &str| text.chars().count();
    let what = width(count, &judged.iter().map(|j| j.what).collect::<Vec<_>>());
    let value = width(count, &judged.iter().map(|j| j.value.as_str()).collect::<Vec<_>>());
    let mut out = String::from("\n");
    for row in &judged {
        let mark = match (row.reached, row.wanted.is_empty()) {
            (_, true) => "",
            (true, false) => "ok: ",
            (false, false) => "MISSED: ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:what$}  {:>value$}  {mark}{}", row.what, row.value, row.wanted);
    }
    out.push('\n');
    let _ = writeln!(
        out,
        "{:10} {:>10} {:>10} {:>9} {:>14}",
        "device", "frames in", "answered", "samples", "peak memory MB"
    );
    for agent in &figures.agents {
        let _ = writeln!(
            out,
            "{:10} {:>10} {:>10} {:>9} {:>14.1}",
            agent.name,
            agent.frames_in,
            agent.frames_answered,
            agent.samples_sent,
            agent.peak_rss_mb
        );
    }
    out
}
