//! The hub as devices meet it: a real broker, real TLS, a real database, in one process on free
//! loopback ports.

mod access;
mod agent;
mod crash;
mod device;
mod drift;
mod enrolment;
mod fetching;
mod full_disk;
mod intake;
mod month;
mod renewal;
mod replacement;
mod rig;
mod seen;
mod setup;
mod topics;
mod uploads;
mod versions;
