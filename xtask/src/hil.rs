//! `cargo xtask hil`: set up, build everything, then become the program that runs scenarios.

use std::convert::Infallible;
use std::ffi::OsString;

use anyhow::Result;

use crate::demo;

/// Never returns when all goes well.
///
/// # Errors
/// When setting up, building or starting fails.
pub fn run(options: &[OsString]) -> Result<Infallible> {
    demo::run(&[&["hil".into()], options].concat())
}
