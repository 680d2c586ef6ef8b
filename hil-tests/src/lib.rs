//! Scenarios against the product's real processes, on any rig that can run them.
//!
//! ```text
//!  scenario ── what is done, and what must come of it
//!     │
//!   fleet ──── hub, worker and agents as their operator drives them: command lines and API
//!     │
//!    rig ───── where processes run: this machine; later a virtual board, a real one over ssh
//! ```
//!
//! Nothing here links the product's hub, agent or trainer: what is tested are the programs that
//! ship, built beside this crate's own (`cargo build --release --workspace`).

pub mod annotator;
pub mod api;
mod draws;
pub mod drift;
pub mod exam;
pub mod files;
pub mod fleet;
pub mod pictures;
pub mod progress;
pub mod rig;
pub mod scenario;
pub mod wait;
