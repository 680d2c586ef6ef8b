//! How a program of the fleet shows what it does.
//!
//! - [`metrics`]: a status in Prometheus' words, at the moment it is asked for.
//! - [`otlp`]: the steps of a sample's road as spans, for a collector.
//! - [`output`]: what a command line prints as its result.
//!
//! Nothing is decided here, and nothing counted but what became of spans.

pub mod metrics;
pub mod otlp;
pub mod output;
