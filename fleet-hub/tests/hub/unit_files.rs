//! The packaged systemd units of hub and worker, by systemd's own tools, from Debian's package
//! `systemd`. `FLEETLOOP_NO_SYSTEMD=1` says that they are known to be missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The exposure of 0 (none) to 10, times ten, that a unit stays below: what is left is the network.
const EXPOSURE: &str = "15";

const NO_SYSTEMD: &str = "FLEETLOOP_NO_SYSTEMD";

/// A unit, its program, and a program that exists on this machine.
const UNITS: [(&str, &str, &str); 2] = [
    ("fleetloop-hub.service", "/usr/bin/fleet-hub", env!("CARGO_BIN_EXE_fleet-hub")),
    ("fleetloop-worker.service", "/usr/bin/trainer", "/bin/true"),
];

fn packaged(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross/systemd");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn unit(dir: &Path, (name, program, ours): (&str, &str, &str)) -> PathBuf {
    let text = packaged(name);
    assert!(text.contains(&format!("ExecStart={program} ")), "{name}");
    let path = dir.join(name);
    let text = text.replace(program, ours);
    fleet_hub::durable::write(&path, text.as_bytes(), fleet_hub::durable::Access::Everybody)
        .unwrap();
    path
}

fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(_) if std::env::var_os(NO_SYSTEMD).is_some() => None,
        Err(error) => panic!(
            "systemd-analyze: {error}; install Debian's package systemd, or set {NO_SYSTEMD}=1 to leave this out"
        ),
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for named in UNITS {
        let Some(output) = analyze(&["verify"], &unit(dir.path(), named)) else { return };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let about_it: Vec<_> = said.lines().filter(|line| line.contains(named.0)).collect();
        assert!(about_it.is_empty(), "{about_it:?}");
    }
}

#[test]
fn the_units_expose_little_but_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let threshold = format!("--threshold={EXPOSURE}");
    for named in UNITS {
        let arguments = ["security", "--offline=true", "--no-pager", &threshold];
        let Some(output) = analyze(&arguments, &unit(dir.path(), named)) else { return };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("Overall exposure level"), "{said}");
    }
}

#[test]
fn each_unit_has_a_user_of_its_own_and_closes_what_it_writes() {
    for (name, ..) in UNITS {
        let text = packaged(name);
        let user = text.lines().find_map(|line| line.strip_prefix("User=")).unwrap();
        assert_ne!(user, "root");
        let users = packaged(&name.replace(".service", ".sysusers"));
        assert!(users.contains(&format!("u {user} ")), "{users}");
        assert!(text.contains("UMask=0077") && text.contains("DirectoryMode=0700"), "{name}");
    }
}

#[test]
fn the_hub_understands_the_line_that_its_unit_starts_it_with_and_says_when_it_is_ready() {
    let text = packaged(UNITS[0].0);
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/fleet-hub "));
    let dir = tempfile::tempdir().unwrap();
    let line = line.unwrap().replace("/var/lib/fleetloop-hub", &dir.path().display().to_string());
    let ended = Command::new(UNITS[0].2).args(line.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("fleet-hub init"), "{said}");
}
