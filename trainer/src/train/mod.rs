//! Training, at its plainest but right.
//!
//! | module | what it does |
//! |---|---|
//! | [`recipe`] | what a person may choose, parsed once and checked whole |
//! | [`choice`] | the choices that are no numbers |
//! | [`data`] | inputs and targets in memory, checked once |
//! | [`groups`] | where each sample came from |
//! | [`held_out`] | which whole groups are judged by |
//! | [`draw`] | the order of an epoch: seeded, with each group's share |
//! | [`augment`] | random shifts, flips and brightness of pictures |
//! | [`objective`] | a loss with its targets: where it is taken, what fits, what is right |
//! | [`loss`] | the losses' formulas |
//! | [`optimizer`] | AdamW and SGD by role, cosine with warm-up |
//! | [`freeze`] | what keeps the base's values |
//! | [`validation`] | samples that are not learned from, and early stopping |
//! | [`checkpoint`] | what a run that was killed goes on from |
//! | [`pass`] | one batch through the graph |
//! | [`task`] | what a run is given, and what it tells |
//! | [`learn`] | the loop |
//!
//! Invariant: the same graph, data, recipe and seed give the same bytes on the same kind of machine.

pub mod augment;
mod batches;
pub mod checkpoint;
pub mod choice;
pub mod data;
pub mod draw;
pub mod error;
pub mod freeze;
pub mod groups;
pub mod held_out;
pub mod learn;
pub mod loss;
pub mod objective;
pub mod optimizer;
pub mod pass;
pub mod recipe;
pub mod task;
pub mod validation;

pub use augment::Augment;
pub use choice::{Algorithm, EarlyStopping, Freeze, Loss};
pub use data::{DataError, Targets, TrainingSet};
pub use error::TrainError;
pub use groups::Groups;
pub use learn::train;
pub use recipe::{Recipe, RecipeError};
pub use task::{Epoch, Outcome, Progress, Task};
