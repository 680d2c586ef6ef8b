//! The real program over folders that were open to everybody.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::rig::options;

/// A program that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn hub() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fleet-hub"))
}

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Everything in a folder that other users may use, the folder included.
fn open_to_others(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mode = std::fs::symlink_metadata(folder).unwrap().permissions().mode();
    if mode & 0o077 != 0 {
        found.push(folder.to_owned());
    }
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder).unwrap() {
            found.extend(open_to_others(&entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn a_data_folder_that_was_open_to_everybody_is_closed_by_init_and_by_serve() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    std::fs::create_dir(&options.data).unwrap();
    set(&options.data, 0o755);
    let made = hub()
        .args(["init", "--labels", "good,bad"])
        .args(["--data".as_ref(), options.data.as_os_str()])
        .args(["--offline-keys".as_ref(), options.offline_keys.as_os_str()])
        .args(["--admin-listen", &options.admin_listen, "--device-listen", &options.device_listen])
        .args(["--mqtt-listen", &options.mqtt_listen])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(open_to_others(&options.data), Vec::<PathBuf>::new());
    assert_eq!(open_to_others(&options.offline_keys), Vec::<PathBuf>::new());
    for name in ["", "hub.db", "pki", "pki/ca.key", "payloads", "tuf", "admin.toml"] {
        let path = options.data.join(name);
        set(&path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    let manager = std::os::unix::net::UnixDatagram::bind(dir.path().join("notify")).unwrap();
    let mut serving = hub()
        .args(["serve", "--no-worker", "--data"])
        .arg(&options.data)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let mut ready = String::new();
    BufReader::new(serving.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.starts_with("ready "), "{ready}");
    let mut message = [0; 64];
    let len = manager.recv(&mut message).unwrap();
    assert!(message[..len].starts_with(b"READY=1"), "the service manager hears of it, too");
    // The database's journal, which SQLite makes, is among them.
    assert!(options.data.join("hub.db-wal").exists());
    assert_eq!(open_to_others(&options.data), Vec::<PathBuf>::new());
    let mut log = BufReader::new(serving.0.stderr.take().unwrap()).lines();
    let said = log.find_map(|line| line.ok().filter(|line| line.contains("open to other users")));
    assert!(said.is_some());
}
