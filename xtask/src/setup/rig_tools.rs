//! The system's programs that scenarios make volumes and networks with. Where they cannot be had,
//! this is told and nothing else happens: those scenarios say so when they are run.

use std::collections::BTreeSet;

use crate::shell;

/// Each with the Debian package that has it.
const TOOLS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
];

/// Installs what is missing, where that can be done.
pub fn run() {
    let missing = missing();
    if missing.is_empty() {
        return;
    }
    let packages: Vec<&str> = missing.into_iter().collect();
    let list = packages.join(" ");
    eprintln!("==> install {list}, for scenarios that break links and disks");
    let install = ["install", "--yes", "--no-install-recommends"];
    let mut command = shell::program("apt-get");
    if let Err(error) = shell::run(command.args(install).args(&packages)) {
        eprintln!("note: {error:#}; install {list} by hand as root, or do without these scenarios");
    }
}

fn missing() -> BTreeSet<&'static str> {
    TOOLS.iter().filter(|(tool, _)| !shell::exists(tool)).map(|(_, package)| *package).collect()
}
