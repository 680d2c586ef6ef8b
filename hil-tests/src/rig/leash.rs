//! How a process dies with the rig that started it, whatever ends the rig.
//!
//! A rig starts every process through `fleetloop-demo leash PARENT PROGRAM ARGUMENTS…`, which asks
//! the kernel for a SIGKILL at its parent's death (`prctl(2)`, PR_SET_PDEATHSIG), checks that the
//! parent still is `PARENT`, and becomes the program. The wish outlives `execve`, so the product
//! needs no code for it. The kernel means the parent *thread*: see [`super::ThisMachine`].

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Becomes `program`, tied to the process `parent`.
///
/// # Errors
/// When the parent is gone already or the program cannot be started.
pub fn become_program(
    parent: u32,
    program: &OsString,
    arguments: &[OsString],
) -> Result<Infallible> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot ask the kernel for a signal at the parent's death")?;
    // The parent may have died before the wish was made; then nobody would send the signal.
    if getppid().map(Pid::as_raw_pid) != i32::try_from(parent).ok() {
        bail!("cannot start {}: the rig is gone", program.display());
    }
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
