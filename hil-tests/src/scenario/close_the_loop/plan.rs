//! How large a run is and what happens in it.

use std::time::Duration;

use super::Limits;
use crate::drift::Drift;
use crate::fleet::Selection;

/// The numbers of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Devices.
    pub agents: usize,
    /// How many of them see their world change, the last ones.
    pub drifted: usize,
    /// Clean pictures to train the first model on: the first of the training set.
    pub clean_train: usize,
    /// Clean pictures for the gate: the next ones. Devices look at those after them.
    pub clean_gate: usize,
    /// Unseen pictures that accuracy is measured on: the first of the test set.
    pub test: usize,
    /// How fast frames arrive at each device.
    pub rate: Rate,
    /// How long frames flow before the world changes.
    pub quiet: Duration,
    /// How long they flow afterwards before the person comes to label.
    pub noticing: Duration,
    /// How the world changes.
    pub drift: Drift,
    /// What devices send.
    pub selection: Selection,
    /// How many frames a second each device draws at random, whatever the rate: by these the hub
    /// sees where the model doubts.
    pub random_per_second: f64,
    /// How many labels the person gives at most.
    pub labels_at_most: usize,
    /// How long the person may take; fewer labels than wished are no failure.
    pub labelling: Duration,
    /// The first training's recipe, TOML.
    pub first_recipe: String,
    /// The second training's recipe, TOML.
    pub second_recipe: String,
    /// The seed of both trainings.
    pub seed: u64,
    /// Whether the hub, an agent and the worker are killed on the way.
    pub kills: bool,
    /// What its figures must reach.
    pub limits: Limits,
}

/// How fast frames arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// At this share of what the slowest device can do while all are busy, measured beforehand.
    OfCapacity(f64),
    /// At this many frames a second.
    Hertz(f64),
}

/// What devices send in every run, besides [`Plan::random_per_second`]: enough for the person
/// within a minute, and far below what a link carries.
const SELECTION: Selection = Selection {
    uncertainty_threshold: 0.5,
    random_rate: 0.0,
    budget_bytes_per_hour: 8_000_000,
    burst_bytes: 12_000,
    seed: 7,
};

/// The change of the world, chosen once after measuring the first model and kept.
const DRIFT: Drift = Drift { brightness: 0.35, shift_px: 4 };

impl Plan {
    /// The demo: four devices, ten thousand unseen pictures.
    pub fn demo() -> Self {
        Self {
            agents: 4,
            drifted: 2,
            clean_train: 6_000,
            clean_gate: 1_000,
            test: 10_000,
            rate: Rate::OfCapacity(0.5),
            quiet: Duration::from_secs(15),
            noticing: Duration::from_secs(45),
            drift: DRIFT,
            selection: SELECTION,
            random_per_second: 3.0,
            labels_at_most: 500,
            labelling: Duration::from_secs(120),
            first_recipe: String::new(),
            second_recipe: String::new(),
            seed: 1,
            kills: false,
            limits: Limits::DEMO,
        }
    }

    /// The same loop in a few minutes on two busy cores: fewer pictures, fewer devices, and frames
    /// slow enough for any machine.
    pub fn small() -> Self {
        Self {
            agents: 2,
            drifted: 1,
            clean_train: 1_500,
            clean_gate: 300,
            test: 1_000,
            rate: Rate::Hertz(60.0),
            quiet: Duration::from_secs(5),
            noticing: Duration::from_secs(15),
            labels_at_most: 150,
            labelling: Duration::from_secs(90),
            limits: Limits::SMALL,
            ..Self::demo()
        }
    }
}
