//! Models that nobody should run, made in memory: what every door must refuse, and what must be
//! bounded where it runs. The tests of models, hub and agent share this folder.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod build;
pub mod bundle;
pub mod endless;
pub mod refused;
