//! The executor: an ONNX graph compiled once and run many times on burn's rank-free tensors.
//!
//! Load → check → plan → run. Everything a file can be refused for is found before the first step:
//! [`Graph::load`] names every node that cannot be done. A [`Plan`] holds slots instead of names,
//! integer arithmetic and constants are computed on the host, the batch dimension stays symbolic,
//! and each step knows which values are used for the last time.
//!
//! | module | what it does |
//! |---|---|
//! | `dim` | sizes that may be multiples of the batch |
//! | `fact` | what is known of a value before anything runs |
//! | `role` | what an initializer is for, and so whether it trains |
//! | `check` | finds the operator for every node, or the reason why not |
//! | `plan` | slots, steps, last uses |
//! | `params` | the values that training changes |
//! | `run` | one forward pass |

mod check;
mod dim;
mod error;
mod fact;
mod params;
mod plan;
mod role;
mod run;

pub use dim::Dim;
pub use error::{GraphError, Refusal};
pub use fact::{Constant, Fact};
pub use params::{Parameter, Parameters};
pub use plan::{Graph, Plan, Step};
pub use role::Role;
pub use run::{Context, Mode, Observation};

/// A tensor of any rank on any device of burn's.
pub type Tensor = burn::backend::DispatchTensor;
