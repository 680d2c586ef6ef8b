//! The gate: whether a model may be released, as pure functions of reports.
//!
//! [`covers`] first holds a report against the frozen dataset, so that a worker can neither leave
//! out a hard item nor relabel it. [`contradiction`] compares it with what is stored about the same
//! bundle, so that a worker cannot invent what another has measured. [`verdict`] then judges: what a task's
//! answers are worth is counted in one place (`measure`), how sure a count is follows from statistics
//! (`statistics`), and the verdict looks at counts only. With a base the candidate may lose a little on what
//! was imported and nothing on what the fleet sent, compared on the same items; without one it must reach a
//! floor. Every number looked at stands in the verdict, and what it rests on. [`comparable`] is the one
//! figure that may be compared over all versions.

mod agreement;
mod comparable;
mod covers;
mod measure;
pub mod statistics;
#[cfg(test)]
mod testing;
mod verdict;

pub use agreement::{Contradiction, contradiction};
pub use comparable::comparable;
pub use covers::{GateError, covers};
pub use verdict::{Policy, verdict, word};
