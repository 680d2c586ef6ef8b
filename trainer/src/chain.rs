//! An error and its causes in one line, for logs and for the hub.

pub use fleetloop_observe::text::chain;
