//! Programs of the system that a rig is made with.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs a program of the system to its end.
pub(super) fn tool(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {line}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{line} failed ({}): {}", output.status, said.trim());
    }
    Ok(())
}
