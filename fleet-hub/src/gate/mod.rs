//! The gate: whether a model may be released, as pure functions of reports.
//!
//! [`covers`] first holds a report against the frozen dataset, so that a worker can neither leave
//! out a hard item nor relabel it. [`contradiction`] compares it with what is stored about the same
//! bundle, so that a worker cannot invent what another has measured. [`verdict`] then judges. With a
//! base the candidate may lose a little on what the base already knew (group `import`) and nothing on
//! what the fleet sent; without one it must reach an absolute floor. Every number looked at stands in
//! the verdict.

mod agreement;
mod verdict;

pub use agreement::{Contradiction, contradiction};
pub use verdict::{GateError, Policy, covers, verdict};
