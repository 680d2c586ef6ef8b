//! What two Fleetloop processes must agree on, and nothing that touches the world.
//!
//! ```text
//!  device ── sample, gap, telemetry, reported ──► hub
//!         ◄─ receipt, refusal, desired ──────────
//! ```
//!
//! Bytes become a value in two steps, each in one place: [`wire`] decodes (a version byte, a limit
//! before any allocation, trailing bytes are an error) and [`signed`] verifies (purpose, version,
//! device and key are part of what is signed). A [`signed::Verified`] can be had in no other way.
//!
//! Domain types live in the modules below and may change; their forms on the wire live in [`form`]
//! and may not. No I/O, no runtime and no clock is used here.

pub mod api;
pub mod backoff;
pub mod digest;
pub mod drift;
pub mod enrol;
pub mod export;
pub mod form;
pub mod gap;
pub mod hub_addresses;
pub mod hub_keys;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod receipt;
pub mod renew;
pub mod revoked;
pub mod sample;
pub mod signed;
pub mod sketch;
pub mod state;
pub mod telemetry;
pub mod time;
pub mod token;
pub mod topic;
pub mod upload;
pub mod wire;

pub use digest::Digest;
pub use ids::{BundleDigest, DeviceId, Epoch, Generation, KeyId, SampleId, Sequence, trace_id};
pub use signed::{Signed, Verified};
pub use time::{ClockState, UnixMillis};
