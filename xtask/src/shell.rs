//! Running other programs, and telling what they did: one named, timed line a step.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The checkout: the folder above this crate.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where fetched files and tools lie; git ignores it.
pub fn cache() -> PathBuf {
    root().join(".fleetloop")
}

/// The cargo that runs this.
pub fn cargo() -> Command {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program that starts in the checkout, as from a terminal there.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    // What `cargo xtask` told this program of its own package. Build scripts look at it (ring's does):
    // with it, all that depends on them would be built again whenever `cargo` itself was used between.
    let of_xtask = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        })
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_xtask(name)) {
        command.env_remove(name);
    }
    command
}

/// A program that is a crate, of that version; installed below the cache when it is not there.
///
/// # Errors
/// When it cannot be installed.
pub fn tool(name: &str, version: &str) -> Result<PathBuf> {
    let tools = cache().join("tools");
    let program = tools.join("bin").join(name);
    if !program.is_file() {
        eprintln!("==> install {name} {version} into {}", tools.display());
        let install = ["install", "--locked", name, "--version", version, "--root"];
        run(cargo().args(install).arg(&tools))?;
    }
    Ok(program)
}

/// Whether a program can be started at all.
pub fn exists(name: &str) -> bool {
    program(name)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// Runs `command` to its end with our own output.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("cannot start '{line}'"))?;
    if !status.success() {
        bail!("'{line}' failed ({status})");
    }
    Ok(())
}

/// Runs `command` to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let out = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start '{line}'"))?;
    if !out.status.success() {
        bail!("'{line}' failed ({})", out.status);
    }
    String::from_utf8(out.stdout).with_context(|| format!("'{line}' printed no UTF-8"))
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    let mut line = words.join(" ").replace('\n', " ");
    if line.len() > 120 {
        let end = (0..=120).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        line.truncate(end);
        line.push_str(" …");
    }
    line
}

/// Steps one after another: all are run, whatever the one before did, and all are told again at
/// the end.
#[derive(Default)]
pub struct Steps {
    done: Vec<(String, Duration, Outcome)>,
}

/// How a step ended.
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not run, for this reason; it does not count as a failure.
    Skipped(String),
    /// Not as it should.
    Failed(anyhow::Error),
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Passed)
    }
}

impl Steps {
    /// Runs one step and says so before and after.
    pub fn step(&mut self, name: &str, work: impl FnOnce() -> Outcome) -> &mut Self {
        eprintln!("\n==> {name}");
        let begun = Instant::now();
        let outcome = work();
        if let Outcome::Failed(error) = &outcome {
            eprintln!("error: {error:#}");
        }
        self.done.push((name.to_owned(), begun.elapsed(), outcome));
        self
    }

    /// Tells all steps with their times; whether none failed.
    pub fn close(&self) -> bool {
        eprintln!();
        for (name, took, outcome) in &self.done {
            let word = match outcome {
                Outcome::Passed => "ok     ".to_owned(),
                Outcome::Skipped(_) => "skipped".to_owned(),
                Outcome::Failed(_) => "FAILED ".to_owned(),
            };
            let seconds = took.as_secs_f32();
            match outcome {
                Outcome::Skipped(why) => eprintln!("{word} {seconds:8.1} s  {name}: {why}"),
                _ => eprintln!("{word} {seconds:8.1} s  {name}"),
            }
        }
        let count =
            |wanted: fn(&Outcome) -> bool| self.done.iter().filter(|s| wanted(&s.2)).count();
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        let total: Duration = self.done.iter().map(|step| step.1).sum();
        let (total, steps) = (total.as_secs(), self.done.len());
        match (failed, skipped) {
            (0, 0) => eprintln!("all {steps} steps passed in {total} s"),
            (0, _) => eprintln!("{} steps passed, {skipped} skipped in {total} s", steps - skipped),
            _ => eprintln!("{failed} of {steps} steps failed in {total} s"),
        }
        failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_run_and_the_later_ones_still_run() {
        let mut ran = false;
        let mut steps = Steps::default();
        steps.step("first", || Outcome::Failed(anyhow::anyhow!("no")));
        steps.step("second", || {
            ran = true;
            Outcome::Passed
        });
        steps.step("third", || Outcome::Skipped("not here".into()));
        assert!(ran);
        assert!(!steps.close());
    }

    #[test]
    fn skipped_steps_do_not_fail_the_run() {
        let mut steps = Steps::default();
        steps.step("first", || Outcome::Passed);
        steps.step("second", || Outcome::Skipped("not here".into()));
        assert!(steps.close());
    }

    #[test]
    fn a_program_that_fails_or_does_not_exist_is_an_error_that_names_it() {
        let error = run(&mut program("false")).unwrap_err();
        assert!(format!("{error:#}").contains("'false'"), "{error:#}");
        let error = run(&mut program("no-such-program-here")).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program-here"), "{error:#}");
    }
}
