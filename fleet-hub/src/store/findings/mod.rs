//! Findings: what the hub noticed and an operator should know.
//!
//! A finding is identified by kind, device and subject, and recorded once: a repeat raises its count
//! and its last time and writes no audit row. It stays until an operator acknowledges it. One that
//! happens again more than [`REOPEN_MS`] after that is open again.
//!
//! Limits: [`PER_DEVICE`] rows for each device (the hub itself and its workers count as one), and
//! [`IN_ALL`] for all together. At either limit a new finding takes the place of one of the *same*
//! device: of the acknowledged one that was seen least recently, else of an open one that matters
//! less. When there is none, it is only counted, in that device's one finding `finding.overflow`. So no
//! device's findings ever push out another's, and what was seen first stays as evidence.
//!
//! Subjects and details are words from outside: they are escaped and cut when they are recorded.

mod kind;
mod rows;
#[cfg(test)]
mod tests;

pub use kind::Kind;
pub use rows::{
    DETAIL_CHARS, Filter, IN_ALL, NewFinding, PER_DEVICE, REOPEN_MS, Recorded, SUBJECT_CHARS,
    acknowledge, acknowledge_all, get, list, open_by_kind, record,
};
