//! The hub as devices meet it: a real broker, real TLS, a real database, in one process on free
//! loopback ports.

mod access;
mod agent;
mod content;
mod crash;
mod device;
mod drift;
mod enrolment;
mod fetching;
mod flood;
mod folders;
mod full_disk;
mod intake;
mod month;
mod private;
mod renewal;
mod replacement;
mod restore;
mod rig;
mod seen;
mod setup;
mod silence;
mod tokens;
mod topics;
mod unit_files;
mod upgrade;
mod uploads;
mod years;
