//! `cargo xtask test`: what a change must pass; continuous integration runs this and nothing else.
//!
//! Every step is run even when one before it failed, so that one run tells everything.

use anyhow::Result;

use crate::setup;
use crate::shell::{self, Outcome, Steps};

/// Runs every step; whether all passed.
///
/// # Errors
/// None of its own: a step that fails is told and counted.
pub fn run() -> Result<bool> {
    let mut steps = Steps::default();
    steps
        .step("setup", || setup::run().into())
        .step("format", || cargo(&["fmt", "--all", "--check"]))
        .step("clippy without warnings", || {
            let workspace = ["clippy", "--release", "--workspace", "--all-targets"];
            cargo(&[&workspace[..], &["--", "-D", "warnings"]].concat())
        })
        .step("build", || cargo(&["build", "--release", "--workspace"]))
        .step("tests and doc tests", || {
            cargo(&["test", "--release", "--workspace", "--no-fail-fast"])
        })
        .step("documentation without warnings", || {
            let mut command = shell::cargo();
            command.args(["doc", "--release", "--workspace", "--no-deps"]);
            command.env("RUSTDOCFLAGS", "-D warnings");
            shell::run(&mut command).into()
        });
    Ok(steps.close())
}

fn cargo(arguments: &[&str]) -> Outcome {
    shell::run(shell::cargo().args(arguments)).into()
}
