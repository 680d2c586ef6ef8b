//! Training, at its plainest but right.
//!
//! | module | what it does |
//! |---|---|
//! | [`recipe`] | what a person may choose, parsed once and checked whole |
//! | [`data`] | labelled inputs in memory, checked once |
//! | [`draw`] | the order of an epoch: seeded, with each group's share |
//! | [`augment`] | random shifts, flips and brightness of pictures |
//! | [`loss`] | cross-entropy |
//! | [`optimizer`] | AdamW by role, cosine with warm-up |
//! | [`learn`] | the loop |
//!
//! Invariant: the same graph, data, recipe and seed give the same bytes on the same kind of machine.

pub mod augment;
pub mod data;
pub mod draw;
pub mod learn;
pub mod loss;
pub mod optimizer;
pub mod recipe;

pub use augment::Augment;
pub use data::{DataError, Sample, TrainingSet};
pub use learn::{Epoch, Progress, TrainError, train};
pub use recipe::{Recipe, RecipeError};
