//! The process on the device.
//!
//! ```text
//!  source → frames → infer → decide ──► results (MQTT, HTTP)
//!                              │
//!                           select → outbox ══► link ══► hub
//!                              ▲                  │
//!            swap ◄── update ◄─┴── desired ◄──────┘
//! ```
//!
//! Beside the road: [`reload`] follows the configuration, [`supervise`] tells a service manager that
//! the threads are alive.
//!
//! Each state has one owner: a thread for what blocks (source, inference, outbox), a task for what
//! waits (link, HTTP). Inference waits for nobody: what it hands on goes through bounded channels
//! that count what they drop.

mod answer;
mod certificate;
pub mod chain;
pub mod check;
pub mod clock;
pub mod config;
pub mod contacts;
pub mod decide;
pub mod drift;
pub mod durable;
pub mod enroll;
pub mod frames;
pub mod health;
pub mod home;
pub mod http;
pub mod identity;
pub mod infer;
pub mod link;
pub mod memory;
pub mod metrics;
pub mod outbox;
pub mod priority;
pub mod proof;
pub mod reload;
pub mod renew;
pub mod results;
pub mod run;
pub mod select;
pub mod shutdown;
pub mod source;
pub mod status;
pub mod supervise;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod tls;
pub mod update;
