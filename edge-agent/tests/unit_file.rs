//! The packaged systemd unit, by systemd's own tools, from Debian's package `systemd`.
//! `FLEETLOOP_NO_SYSTEMD=1` says that they are known to be missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The exposure of 0 (none) to 10, times ten, that the unit stays below: what is left is the network.
const EXPOSURE: &str = "15";

/// The unit with a program in it that exists on this machine.
fn unit(dir: &Path) -> PathBuf {
    let from =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross/systemd/fleetloop-agent.service");
    let text = std::fs::read_to_string(from).unwrap();
    let program = env!("CARGO_BIN_EXE_edge-agent");
    let path = dir.join("fleetloop-agent.service");
    let text = text.replace("/usr/bin/edge-agent", program);
    assert!(text.contains(program));
    edge_agent::durable::write(&path, text.as_bytes()).unwrap();
    path
}

fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(_) if std::env::var_os("FLEETLOOP_NO_SYSTEMD").is_some() => None,
        Err(error) => panic!(
            "systemd-analyze: {error}; install Debian's package systemd, or set FLEETLOOP_NO_SYSTEMD=1 to leave this out"
        ),
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let unit = unit(dir.path());
    let Some(output) = analyze(&["verify"], &unit) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let about_it = said.lines().filter(|line| line.contains("fleetloop-agent")).collect::<Vec<_>>();
    assert!(about_it.is_empty(), "{about_it:?}");
}

#[test]
fn the_agent_works_in_a_directory_of_its_own_with_nothing_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(unit(dir.path())).unwrap();
    for line in [
        "WorkingDirectory=%t/fleetloop-empty",
        "RuntimeDirectory=fleetloop-empty",
        "RuntimeDirectoryMode=0500",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn the_unit_exposes_little_but_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let unit = unit(dir.path());
    let threshold = format!("--threshold={EXPOSURE}");
    let arguments = ["security", "--offline=true", "--no-pager", &threshold];
    let Some(output) = analyze(&arguments, &unit) else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}
