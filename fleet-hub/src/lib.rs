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

pub mod access_files;
pub mod api;
pub mod backup;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod clones;
pub mod collect;
pub mod config;
pub mod door;
pub mod drift;
pub mod durable;
pub mod enrol;
pub mod gate;
pub mod hosts;
pub mod init;
pub mod jobs;
pub mod keys;
pub mod labelling;
pub mod last_use;
pub mod limits;
pub mod listeners;
pub mod metrics;
pub mod mqtt;
pub mod own_certificates;
pub mod pages;
pub mod pki;
pub mod plausible;
pub mod presence;
pub mod published;
pub mod quota;
pub mod recover;
pub mod registry;
pub mod release;
pub mod renew;
pub mod revoked;
pub mod rollout;
pub mod serve;
pub mod state;
pub mod status;
pub mod store;
pub mod unfinished;
pub mod worker;

pub use state::{AppState, HubEvent};
