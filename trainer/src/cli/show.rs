//! How far a run is: a bar on a terminal, JSON lines otherwise.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use fleetloop_observe::text::visible;
use fleetloop_protocol::api::jobs::LeftOut;
use indicatif::{ProgressBar, ProgressStyle};

use crate::evaluate::{Accuracy, Summary};
use crate::job::Event;

/// The least time between two JSON lines of the same phase.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Shows events on stderr.
pub struct Show {
    bar: Option<ProgressBar>,
    phase: &'static str,
    last_line: Option<Instant>,
}

impl Show {
    /// A bar when stderr is a terminal, lines otherwise.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:9} {bar:32} {pos}/{len} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Self { bar, phase: "", last_line: None }
    }

    /// Shows one event.
    pub fn event(&mut self, event: &Event) {
        let (phase, position, length) = match event {
            Event::Prepare => ("prepare", 0, 1),
            Event::LeftOut(item) => return self.left_out(item),
            Event::Train(p) => ("train", p.step, p.steps),
            Event::Evaluate(done, total) => ("evaluate", *done, *total),
        };
        if let Some(bar) = &self.bar {
            bar.set_prefix(phase);
            bar.set_length(length as u64);
            bar.set_position(position as u64);
            if let Event::Train(p) = event {
                bar.set_message(format!(
                    "epoch {}/{}  loss {:.4}  {:.0} s left",
                    p.epoch, p.epochs, p.loss, p.eta_s
                ));
            }
            return;
        }
        let due = self.phase != phase
            || position == length
            || self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if due {
            self.phase = phase;
            self.last_line = Some(Instant::now());
            let line = match event {
                Event::Train(p) => {
                    serde_json::json!({ "phase": phase, "done": position, "of": length, "epoch": p.epoch, "loss": p.loss, "eta_s": p.eta_s })
                }
                _ => serde_json::json!({ "phase": phase, "done": position, "of": length }),
            };
            eprintln!("{line}");
        }
    }

    fn left_out(&self, item: &LeftOut) {
        let text = format!("left out: sample {}: {}", item.sample, item.reason);
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{}", serde_json::json!({ "phase": "prepare", "left_out": item })),
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Everything that is known of a classifier.
pub fn figures(title: &str, summary: &Summary, labels: &[String]) -> String {
    let detail = summary.figures.render(labels);
    format!("{}\n{}", accuracy(title, summary), detail.trim_end())
}

/// Files of a person's folder that are left out.
pub fn refused(files: &[(String, String)]) {
    for (name, why) in files {
        if std::io::stderr().is_terminal() {
            eprintln!("{}", visible(&format!("left out: {name}: {why}")));
        } else {
            let line = serde_json::json!({ "phase": "prepare", "refused": name, "reason": why });
            eprintln!("{line}");
        }
    }
}

/// Whole groups that are judged by.
pub fn held_out(groups: Option<&BTreeSet<String>>) {
    let Some(groups) = groups else { return };
    let names: Vec<&str> = groups.iter().map(String::as_str).collect();
    if std::io::stderr().is_terminal() {
        eprintln!("{}", visible(&format!("held out, whole groups: {}", names.join(", "))));
    } else {
        eprintln!("{}", serde_json::json!({ "phase": "prepare", "held_out": names }));
    }
}

/// Accuracy as a small table.
pub fn accuracy(title: &str, summary: &Summary) -> String {
    let line = |c: &Accuracy| format!("{:.4}  ({} of {})", c.share, c.correct, c.total);
    let overall = format!("{title:12} {}", line(&summary.overall));
    let group = |(group, c): (&String, &Accuracy)| format!("\n  {group:10} {}", line(c));
    overall + &summary.groups.iter().map(group).collect::<String>()
}
