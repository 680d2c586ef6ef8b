//! ONNX's backend tests, which the trainer's operators are tested against: out of the Python
//! package `onnx`, which makes most of them in memory.

use anyhow::{Context as _, Result};

use super::Workshop;
use crate::shell;

/// The release of `onnx`; the trainer's backend test names the same folder.
const VERSION: &str = "1.23.2";

const WRITE: &str = include_str!("backend_tests.py");

/// Puts the tests in place if they are not there.
///
/// # Errors
/// When pip or Python fails.
pub fn run() -> Result<()> {
    let place = shell::cache().join(format!("onnx-backend-tests-{VERSION}"));
    if place.is_dir() {
        eprintln!("    ONNX's backend tests {VERSION} are in place");
        return Ok(());
    }
    eprintln!("==> fetch ONNX's backend tests {VERSION} (about 30 MB) from PyPI");
    let workshop = Workshop::new("onnx-backend-tests")?;
    let packages = workshop.path().join("packages");
    let package = format!("onnx=={VERSION}");
    let mut pip = shell::program("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary=:all:", "--no-cache-dir"]);
    pip.arg("--target").arg(&packages).arg(&package);
    shell::run(&mut pip).with_context(|| {
        format!(
            "cannot fetch {package}: pip and PyPI (or a mirror in pip's configuration) must be \
             reachable"
        )
    })?;
    let fresh = workshop.path().join("tests");
    shell::run(
        shell::program("python3").args(["-W", "ignore", "-c", WRITE]).arg(&packages).arg(&fresh),
    )?;
    // Renamed when it is whole: a folder that is there is complete.
    std::fs::rename(&fresh, &place)
        .with_context(|| format!("cannot move the tests to {}", place.display()))
}
