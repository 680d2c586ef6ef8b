//! What a run measured, and what it had to reach.

use serde::Serialize;

/// The figures of a run, each counted where the thing happened.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Share of drifted unseen pictures that the first model gets right.
    pub accuracy_drifted_before: f64,
    /// The same of the second model.
    pub accuracy_drifted_after: f64,
    /// Share of clean unseen pictures that the first model gets right.
    pub accuracy_clean_before: f64,
    /// The same of the second model.
    pub accuracy_clean_after: f64,
    /// Samples that devices signed, as they say.
    pub samples_sent: u64,
    /// Samples that the hub has, each listed once.
    pub samples_stored: u64,
    /// Samples whose receipt devices hold, as they say.
    pub samples_receipted: u64,
    /// Signed and not stored.
    pub samples_lost: u64,
    /// Listed more than once at the hub.
    pub samples_duplicated: u64,
    /// Frames that arrived at devices.
    pub frames_in: u64,
    /// Frames that were answered.
    pub frames_answered: u64,
    /// Samples that a person labelled.
    pub labels_used: u64,
    /// From the first command to the last figure.
    pub wall_seconds: f64,
    /// The most memory any agent held resident, in 10^6 bytes.
    pub agent_peak_rss_mb: f64,
    /// The devices one by one; on the screen only.
    #[serde(skip)]
    pub agents: Vec<AgentFigures>,
}

/// One device's part.
#[derive(Debug, Clone)]
pub struct AgentFigures {
    /// Its name.
    pub name: String,
    /// Frames that arrived.
    pub frames_in: u64,
    /// Frames that were answered.
    pub frames_answered: u64,
    /// Samples signed.
    pub samples_sent: u64,
    /// The most memory it held resident, in 10^6 bytes.
    pub peak_rss_mb: f64,
}

/// What a run's figures must reach.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The drift must hurt: at most this before.
    pub drifted_before_at_most: f64,
    /// The loop must help: at least this after.
    pub drifted_after_at_least: f64,
    /// How much of clean accuracy may be lost.
    pub clean_may_lose: f64,
    /// Labels.
    pub labels_at_most: u64,
    /// Seconds.
    pub wall_at_most: f64,
}

impl Limits {
    /// What the demo promises, on two cores.
    pub const DEMO: Self = Self {
        drifted_before_at_most: 0.60,
        drifted_after_at_least: 0.78,
        clean_may_lose: 0.015,
        labels_at_most: 500,
        wall_at_most: 600.0,
    };

    /// What a small run must reach: little was learned from little, but the loop must have helped.
    pub const SMALL: Self = Self {
        drifted_before_at_most: 0.60,
        drifted_after_at_least: 0.60,
        clean_may_lose: 0.05,
        labels_at_most: 150,
        // No test is timed.
        wall_at_most: f64::INFINITY,
    };
}

/// One figure, what it must be, and whether it is.
#[derive(Debug, Clone)]
pub struct Judged {
    /// What, in words.
    pub what: &'static str,
    /// The figure as text.
    pub value: String,
    /// What it must be, in words; empty when it is only told.
    pub wanted: String,
    /// Whether it is.
    pub reached: bool,
}

impl Figures {
    /// All figures beside their limits, in the order in which things happened.
    pub fn judged(&self, limits: &Limits) -> Vec<Judged> {
        let judge =
            |what, value: String, wanted: String, reached| Judged { what, value, wanted, reached };
        let share = |value: f64| format!("{value:.4}");
        let count = |value: u64| value.to_string();
        let (before, after) = (self.accuracy_drifted_before, self.accuracy_drifted_after);
        let least_clean = self.accuracy_clean_before - limits.clean_may_lose;
        let sent = self.samples_sent;
        vec![
            judge(
                "drifted accuracy before",
                share(before),
                format!("at most {:.2}", limits.drifted_before_at_most),
                before <= limits.drifted_before_at_most,
            ),
            judge(
                "drifted accuracy after",
                share(after),
                format!("at least {:.2}", limits.drifted_after_at_least),
                after >= limits.drifted_after_at_least,
            ),
            judge("clean accuracy before", share(self.accuracy_clean_before), String::new(), true),
            judge(
                "clean accuracy after",
                share(self.accuracy_clean_after),
                format!("at least {least_clean:.4}"),
                self.accuracy_clean_after >= least_clean,
            ),
            judge("samples sent", count(sent), "at least 1".into(), sent > 0),
            judge(
                "samples stored",
                count(self.samples_stored),
                count(sent),
                self.samples_stored == sent,
            ),
            judge(
                "samples receipted",
                count(self.samples_receipted),
                count(sent),
                self.samples_receipted == sent,
            ),
            judge("samples lost", count(self.samples_lost), count(0), self.samples_lost == 0),
            judge(
                "samples stored twice",
                count(self.samples_duplicated),
                count(0),
                self.samples_duplicated == 0,
            ),
            judge("frames in", count(self.frames_in), "at least 1".into(), self.frames_in > 0),
            judge(
                "frames answered",
                count(self.frames_answered),
                count(self.frames_in),
                self.frames_answered == self.frames_in,
            ),
            judge(
                "labels used",
                count(self.labels_used),
                format!("at most {}", limits.labels_at_most),
                self.labels_used <= limits.labels_at_most,
            ),
            judge(
                "wall seconds",
                format!("{:.0}", self.wall_seconds),
                format!("under {:.0}", limits.wall_at_most),
                self.wall_seconds < limits.wall_at_most,
            ),
            judge(
                "peak memory of an agent, MB",
                format!("{:.1}", self.agent_peak_rss_mb),
                String::new(),
                true,
            ),
        ]
    }

    /// The figures that miss their limits, in words.
    pub fn missed(&self, limits: &Limits) -> Vec<String> {
        self.judged(limits)
            .into_iter()
            .filter(|judged| !judged.reached)
            .map(|judged| format!("{}: {}, wanted {}", judged.what, judged.value, judged.wanted))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures {
            accuracy_drifted_before: 0.4,
            accuracy_drifted_after: 0.8,
            accuracy_clean_before: 0.87,
            accuracy_clean_after: 0.86,
            samples_sent: 7,
            samples_stored: 7,
            samples_receipted: 7,
            samples_lost: 0,
            samples_duplicated: 0,
            frames_in: 10,
            frames_answered: 10,
            labels_used: 500,
            wall_seconds: 300.0,
            agent_peak_rss_mb: 40.0,
            agents: Vec::new(),
        }
    }

    #[test]
    fn good_figures_miss_nothing() {
        assert_eq!(good().missed(&Limits::DEMO), Vec::<String>::new());
    }

    #[test]
    fn each_figure_that_misses_its_limit_is_told() {
        let spoil: [fn(&mut Figures); 12] = [
            |f| f.accuracy_drifted_before = 0.61,
            |f| f.accuracy_drifted_after = 0.77,
            |f| f.accuracy_clean_after = 0.85,
            |f| f.samples_stored = 6,
            |f| f.samples_receipted = 6,
            |f| f.samples_lost = 1,
            |f| f.samples_duplicated = 1,
            |f| f.frames_answered = 9,
            |f| f.labels_used = 501,
            |f| f.wall_seconds = 601.0,
            |f| f.accuracy_drifted_after = f64::NAN,
            |f| f.accuracy_drifted_before = f64::NAN,
        ];
        for (number, spoil) in spoil.iter().enumerate() {
            let mut figures = good();
            spoil(&mut figures);
            assert_eq!(figures.missed(&Limits::DEMO).len(), 1, "case {number}");
        }
    }
}
