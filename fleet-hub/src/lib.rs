//! The hub: takes in what devices sign, keeps it, has it labelled and learned from, and rolls the
//! result out again.
//!
//! ```text
//!            broker ◄──mTLS──► devices
//!              │
//!            mqtt ── ingest ──► store ◄── api ◄── people, workers
//!              ▲                  │
//!              └── rollout ◄── release
//! ```
//!
//! `store` is the memory and the only place with SQL; `mqtt` is an ordinary client of any
//! broker; `listeners` serve HTTPS; nothing is promised before it is on disk.

pub mod api;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod drift;
pub mod durable;
pub mod enrol;
pub mod gate;
pub mod init;
pub mod jobs;
pub mod labelling;
pub mod limits;
pub mod listeners;
pub mod metrics;
pub mod mqtt;
pub mod own_certificates;
pub mod pages;
pub mod pki;
pub mod registry;
pub mod release;
pub mod renew;
pub mod rollout;
pub mod serve;
pub mod state;
pub mod status;
pub mod store;
pub mod worker;

pub use state::{AppState, HubEvent};
