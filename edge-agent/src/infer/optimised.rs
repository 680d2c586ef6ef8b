//! A bundle's graph as ONNX Runtime optimised it on this device: it loads faster and needs less
//! memory than the bundle's own.
//!
//! One file, beside the bundle and removed with it: one line
//! `fleetloop-optimised 1 <key> <SHA-256 of the body>`, then the body in ONNX Runtime's own format.
//! The key is a digest over the bundle's digest, the runtime's build and file, and the processor's
//! features: what the optimiser chose for another bundle, runtime or processor is stale.
//!
//! A file that is damaged, stale or refused by the runtime is made anew; without room for one the
//! bundle's own graph answers. The session that comes of it reproduces the golden cases like any
//! other. The checksum is against damage: who can write here can write the bundle's record and the
//! device's key beside it, and is trusted as far. A power cut leaves the whole file, or none and
//! perhaps a part that the next attempt writes over.

use std::path::{Path, PathBuf};

use fleetloop_models::bundle::{Bundle, FILE_BYTES};
use fleetloop_models::session::{Runtime, Session};
use fleetloop_protocol::Digest;

use crate::chain::chain;
use crate::durable;

/// Its name in a bundle's folder; no file of a bundle begins with a dot.
pub const FILE: &str = ".optimised";

const MAGIC: &str = "fleetloop-optimised 1 ";
/// The bytes the first line takes at most.
const HEADER_BYTES: usize = 256;

/// The optimised graph of one bundle under one runtime.
#[derive(Debug)]
pub struct Optimised {
    path: PathBuf,
    key: Digest,
}

/// The bytes of an optimised graph that is what it was when it was kept.
#[derive(Debug)]
pub struct Graph {
    file: Vec<u8>,
    start: usize,
}

impl Graph {
    /// What the runtime loads.
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.start..]
    }
}

impl Optimised {
    /// The optimised graph of `bundle` in `path`, whether it is there or not.
    pub fn new(path: PathBuf, bundle: &Bundle, runtime: &Runtime) -> Self {
        Self::keyed(path, &[&bundle.digest().to_string(), &runtime.build(), &processor()])
    }

    fn keyed(path: PathBuf, parts: &[&str]) -> Self {
        Self { path, key: Digest::of(parts.join("\n").as_bytes()) }
    }

    /// The graph; none when there is none that is whole and for this bundle, runtime and processor.
    pub fn read(&self) -> Option<Graph> {
        let file = durable::read(&self.path, FILE_BYTES + HEADER_BYTES as u64).ok()??;
        let end = file.iter().take(HEADER_BYTES).position(|byte| *byte == b'\n')?;
        let header = std::str::from_utf8(&file[..end]).ok()?.strip_prefix(MAGIC)?;
        let (key, body) = header.split_once(' ')?;
        let matches =
            key.parse() == Ok(self.key) && body.parse() == Ok(Digest::of(&file[end + 1..]));
        matches.then_some(Graph { file, start: end + 1 })
    }

    /// Has the runtime optimise the bundle's graph, and keeps it. Blocks for as long as loading the
    /// bundle takes. Says nothing of a graph that cannot be loaded: whoever loads it will.
    pub fn make(&self, bundle: &Bundle, runtime: &Runtime) {
        let part = self.path.with_extension("part");
        let made = Session::optimise(runtime, bundle, &part);
        if made.is_ok()
            && let Err(error) = self.keep(&part)
        {
            tracing::warn!(reason = chain(&error), "an optimised graph is not kept");
        }
        // Nothing is lost if it stays: the next attempt writes over it.
        std::fs::remove_file(&part).ok();
    }

    fn keep(&self, part: &Path) -> Result<(), durable::DurableError> {
        let Some(body) = durable::read(part, FILE_BYTES)? else { return Ok(()) };
        let mut file = format!("{MAGIC}{} {}\n", self.key, Digest::of(&body)).into_bytes();
        file.extend_from_slice(&body);
        durable::write(&self.path, &file)
    }

    /// Removes it: it cannot be used.
    pub fn discard(&self) {
        std::fs::remove_file(&self.path).ok();
    }
}

/// What the optimiser may have chosen by: the first processor's features.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let is_features = |line: &&str| line.starts_with("flags") || line.starts_with("Features");
    let features = text.lines().find(is_features).unwrap_or_default();
    format!("{} {features}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(dir: &Path, parts: &[&str]) -> Optimised {
        Optimised::keyed(dir.join(FILE), parts)
    }

    fn write(optimised: &Optimised, body: &[u8]) {
        let part = optimised.path.with_extension("part");
        durable::write(&part, body).unwrap();
        optimised.keep(&part).unwrap();
    }

    #[test]
    fn what_was_kept_is_read_for_the_same_bundle_runtime_and_processor_only() {
        let dir = tempfile::tempdir().unwrap();
        let optimised = kept(dir.path(), &["bundle", "runtime", "processor"]);
        assert!(optimised.read().is_none());
        write(&optimised, b"graph");
        assert_eq!(optimised.read().unwrap().bytes(), b"graph");
        for other in [["else", "runtime", "processor"], ["bundle", "else", "processor"]] {
            assert!(kept(dir.path(), &other).read().is_none());
        }
        assert!(kept(dir.path(), &["bundle", "runtime", "else"]).read().is_none());
    }

    #[test]
    fn no_damaged_byte_goes_unnoticed() {
        let dir = tempfile::tempdir().unwrap();
        let optimised = kept(dir.path(), &["bundle"]);
        write(&optimised, b"graph");
        let whole = std::fs::read(&optimised.path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            durable::write(&optimised.path, &damaged).unwrap();
            assert!(optimised.read().is_none(), "byte {at}");
            durable::write(&optimised.path, &whole[..at]).unwrap();
            assert!(optimised.read().is_none(), "cut at {at}");
        }
    }
}
