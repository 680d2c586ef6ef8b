//! How a program of the fleet behaves towards the machine it runs on and whoever watches it.
//!
//! - [`mod@log`]: log lines.
//! - [`metrics`]: a status in Prometheus' words, at the moment it is asked for.
//! - [`otlp`]: the steps of a sample's road as spans, for a collector.
//! - [`output`]: what a command line prints as its result.
//! - [`private`]: files are their owner's only.
//! - [`text`]: words from outside, made safe to print.
//!
//! Nothing is decided here, and nothing counted but what became of spans.

pub mod log;
pub mod metrics;
pub mod names;
pub mod otlp;
pub mod output;
pub mod private;
pub mod proxy;
pub mod text;
