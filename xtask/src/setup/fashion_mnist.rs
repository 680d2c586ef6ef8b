//! Fashion-MNIST (MIT): 60,000 + 10,000 pictures of 28×28 with labels, the demo's world.
//!
//! Looked for in this order: the four files themselves, gzipped or not, in `.fleetloop/`; where
//! the Debian package installs them; the Debian package by `apt-get download`, which needs no
//! root; the same package from Debian's mirror by HTTP, for machines without apt.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Pinned, Workshop, accept, is_right, unpack};
use crate::shell;

const PACKAGE: &str = "dataset-fashion-mnist";
const INSTALLED: &str = "usr/share/datasets/fashion-mnist";
const MIRROR: &str = "http://deb.debian.org/debian/pool/main/d/dataset-fashion-mnist/\
                      dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb";

const FILES: [Pinned; 4] = [
    Pinned {
        name: "train-images-idx3-ubyte",
        sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    },
    Pinned {
        name: "train-labels-idx1-ubyte",
        sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    },
    Pinned {
        name: "t10k-images-idx3-ubyte",
        sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    },
    Pinned {
        name: "t10k-labels-idx1-ubyte",
        sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
];

/// Puts the four files in place if they are not there.
///
/// # Errors
/// When they can be had from nowhere; the text says where to put them by hand.
pub fn run() -> Result<()> {
    let place = shell::cache().join("fashion-mnist");
    std::fs::create_dir_all(&place)
        .with_context(|| format!("cannot make the folder {}", place.display()))?;
    if all_right(&place)? {
        eprintln!("    Fashion-MNIST is in place");
        return Ok(());
    }
    let workshop = Workshop::new("fashion-mnist")?;
    for folder in [place.clone(), Path::new("/").join(INSTALLED)] {
        if has_all(&folder) {
            eprintln!("==> take Fashion-MNIST from {}", folder.display());
            return take(&folder, &place, workshop.path());
        }
    }
    eprintln!("==> fetch Fashion-MNIST (31 MB, Debian package {PACKAGE})");
    let package = by_apt(workshop.path()).or_else(|apt| {
        eprintln!("    apt-get cannot fetch it ({apt:#}); trying Debian's mirror");
        by_http(workshop.path())
    });
    let package = package.with_context(|| {
        format!(
            "cannot fetch Fashion-MNIST: install the Debian package {PACKAGE}, or put its four \
             files ({}; gzipped or not) into {}",
            FILES.map(|file| file.name).join(", "),
            place.display()
        )
    })?;
    open(&package, workshop.path())?;
    take(&workshop.path().join(INSTALLED), &place, workshop.path())
}

fn all_right(folder: &Path) -> Result<bool> {
    for file in &FILES {
        if !is_right(&folder.join(file.name), file.sha256)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_all(folder: &Path) -> bool {
    FILES.iter().all(|file| held(folder, file).is_some())
}

fn held(folder: &Path, file: &Pinned) -> Option<PathBuf> {
    let plain = folder.join(file.name);
    let packed = folder.join(format!("{}.gz", file.name));
    [packed, plain].into_iter().find(|path| path.is_file())
}

fn take(folder: &Path, place: &Path, workshop: &Path) -> Result<()> {
    for file in &FILES {
        let Some(from) = held(folder, file) else {
            bail!("{} holds no {}", folder.display(), file.name);
        };
        let fresh = workshop.join(file.name);
        unpack([OsStr::new("gunzip"), from.as_os_str(), fresh.as_os_str()])?;
        accept(&fresh, &place.join(file.name), file.sha256)?;
    }
    Ok(())
}

fn by_apt(workshop: &Path) -> Result<PathBuf> {
    if !shell::exists("apt-get") {
        bail!("there is no apt-get here");
    }
    if shell::run(apt(workshop).args(["download", PACKAGE])).is_err() {
        eprintln!("    no package lists here; fetching private ones");
        shell::run(private_lists(&mut apt(workshop), workshop)?.arg("update"))?;
        shell::run(private_lists(&mut apt(workshop), workshop)?.args(["download", PACKAGE]))?;
    }
    package_in(workshop)
}

fn apt(workshop: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    apt.current_dir(workshop).args(["-q", "-o", "APT::Sandbox::User="]);
    apt
}

/// Lets apt keep its lists in a folder of ours: no root, and the machine's own stay as they are.
fn private_lists<'a>(apt: &'a mut Command, workshop: &Path) -> Result<&'a mut Command> {
    let folders =
        [("Dir::State::lists", "lists", "partial"), ("Dir::Cache", "cache", "archives/partial")];
    for (setting, folder, needed) in folders {
        let folder = workshop.join(folder);
        std::fs::create_dir_all(folder.join(needed))
            .with_context(|| format!("cannot make a folder in {}", folder.display()))?;
        apt.arg("-o").arg(format!("{setting}={}", folder.display()));
    }
    Ok(apt)
}

fn by_http(workshop: &Path) -> Result<PathBuf> {
    let package = workshop.join("mirror.deb");
    unpack([OsStr::new("get"), MIRROR.as_ref(), package.as_os_str()])?;
    Ok(package)
}

fn package_in(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot list the folder {}", folder.display()))?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .with_context(|| format!("apt-get left no package in {}", folder.display()))
}

fn open(package: &Path, folder: &Path) -> Result<()> {
    if shell::exists("dpkg-deb") {
        return shell::run(shell::program("dpkg-deb").arg("-x").arg(package).arg(folder));
    }
    unpack([OsStr::new("deb"), package.as_os_str(), folder.as_os_str()]).map(drop)
}
