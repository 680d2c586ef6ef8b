//! `cargo xtask audit`: licences, bans, sources and known vulnerabilities, by `cargo deny` and the
//! exceptions of `deny.toml`, each of which says why.
//!
//! The advisories live in a git repository on the network. Where it cannot be reached this is said
//! and the step is skipped; the other checks decide.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::shell::{self, Outcome, Steps};

/// The version that is installed when none is there.
const CARGO_DENY: &str = "0.20.2";

/// Where `cargo deny` gets its advisories.
const ADVISORIES: &str = "https://github.com/RustSec/advisory-db";

/// Runs every check; whether none failed.
///
/// # Errors
/// When `cargo deny` is missing and cannot be installed.
pub fn run() -> Result<bool> {
    let deny = shell::tool("cargo-deny", CARGO_DENY)?;
    let mut steps = Steps::default();
    for check in ["licenses", "bans", "sources"] {
        steps.step(check, || shell::run(shell::program(&deny).args(["check", check])).into());
    }
    steps.step("advisories", || {
        if reachable(ADVISORIES) {
            shell::run(shell::program(&deny).args(["check", "advisories"])).into()
        } else {
            Outcome::Skipped(format!("{ADVISORIES} cannot be reached from here"))
        }
    });
    Ok(steps.close())
}

fn reachable(repository: &str) -> bool {
    let mut asked = Command::new("git");
    asked.args(["ls-remote", "--exit-code", repository, "HEAD"]);
    asked.env("GIT_TERMINAL_PROMPT", "0");
    asked.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}
