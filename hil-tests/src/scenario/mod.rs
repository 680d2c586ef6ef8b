//! What is done with a fleet, whole, on any rig.

pub mod close_the_loop;
