//! The proof of a bundle, kept beside it: its graph as ONNX Runtime optimised it on this device, or the
//! word that the bundle's own was proven. An optimised graph loads faster and needs less memory.
//!
//! One file, in the bundle's folder and removed with it: one line
//! `fleetloop-proven <key> <SHA-256 of the body>`, then the body in ONNX Runtime's own format, empty for
//! the bundle's own graph. The key is a digest over the bundle's digest, the runtime's build and file, and
//! the processor's features: what was proven for another bundle, runtime or processor is stale.
//!
//! The child of [`crate::proof`] makes the body, and the agent writes the file of the very bytes that the
//! child named. One that is damaged or stale is no proof: the bundle is tried again. The checksum is
//! against damage: who can write here can write the bundle's record and the device's key beside it, and
//! is trusted as far. A power cut leaves the whole file or none.

use std::path::{Path, PathBuf};

use fleetloop_models::bundle::FILE_BYTES;
use fleetloop_models::session::{Optimised, Runtime};
use fleetloop_protocol::{BundleDigest, Digest};

use crate::chain::chain;
use crate::durable;
use crate::proof::{Proof, Proven};

/// Its name in a bundle's folder; no file of a bundle begins with a dot.
pub const FILE: &str = ".optimised";

const MAGIC: &str = "fleetloop-proven ";
/// The bytes the first line takes at most.
const HEADER_BYTES: usize = 256;

/// The proof of one bundle under one runtime.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    key: Digest,
}

impl Kept {
    /// The proof of `bundle` in its `folder`, whether it is there or not.
    pub fn new(folder: &Path, bundle: BundleDigest, runtime: &Runtime) -> Self {
        let parts = [bundle.to_string(), runtime.build(), processor()];
        Self::keyed(folder.join(FILE), &parts.each_ref().map(String::as_str))
    }

    /// Removes the proof in a bundle's folder.
    pub(crate) fn remove_from(folder: &Path) {
        std::fs::remove_file(folder.join(FILE)).ok();
    }

    fn keyed(path: PathBuf, parts: &[&str]) -> Self {
        Self { path, key: Digest::of(parts.join("\n").as_bytes()) }
    }

    /// The proof; none when there is none that is whole and for this bundle, runtime and processor.
    pub(crate) fn read(&self) -> Option<Proof> {
        let file = durable::read(&self.path, FILE_BYTES + HEADER_BYTES as u64).ok()??;
        let end = file.iter().take(HEADER_BYTES).position(|byte| *byte == b'\n')?;
        let header = std::str::from_utf8(&file[..end]).ok()?.strip_prefix(MAGIC)?;
        let (key, body) = header.split_once(' ')?;
        let (key, body): (Digest, Digest) = (key.parse().ok()?, body.parse().ok()?);
        if key != self.key {
            return None;
        }
        let is_own = file.len() == end + 1;
        let graph = Optimised::of(file, end + 1, body)?;
        Some(Proof::kept(if is_own { Proven::Own } else { Proven::Optimised(graph) }))
    }

    /// Keeps a proof. Without room for it the next start tries the bundle again.
    pub(crate) fn keep(&self, graph: &Proven) {
        let body = match graph {
            Proven::Own => &[][..],
            Proven::Optimised(graph) => graph.bytes(),
        };
        let mut file = format!("{MAGIC}{} {}\n", self.key, Digest::of(body)).into_bytes();
        file.extend_from_slice(body);
        if let Err(error) = durable::write(&self.path, &file) {
            tracing::warn!(reason = chain(&error), "the proof of a bundle is not kept");
        }
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

    fn kept(dir: &Path, parts: &[&str]) -> Kept {
        Kept::keyed(dir.join(FILE), parts)
    }

    fn write(optimised: &Kept, body: &[u8]) {
        let graph = Optimised::of(body.to_vec(), 0, Digest::of(body)).unwrap();
        optimised.keep(&Proven::Optimised(graph));
    }

    fn body(kept: &Kept) -> Option<Vec<u8>> {
        match kept.read()?.graph {
            Proven::Own => None,
            Proven::Optimised(graph) => Some(graph.bytes().to_vec()),
        }
    }

    #[test]
    fn what_was_kept_is_read_for_the_same_bundle_runtime_and_processor_only() {
        let dir = tempfile::tempdir().unwrap();
        let optimised = kept(dir.path(), &["bundle", "runtime", "processor"]);
        assert!(optimised.read().is_none());
        write(&optimised, b"graph");
        assert_eq!(body(&optimised).unwrap(), b"graph");
        for other in [["else", "runtime", "processor"], ["bundle", "else", "processor"]] {
            assert!(kept(dir.path(), &other).read().is_none());
        }
        assert!(kept(dir.path(), &["bundle", "runtime", "else"]).read().is_none());
    }

    #[test]
    fn the_word_that_the_bundles_own_graph_was_proven_is_kept_too() {
        let dir = tempfile::tempdir().unwrap();
        let kept = kept(dir.path(), &["bundle"]);
        kept.keep(&Proven::Own);
        assert!(matches!(kept.read().unwrap().graph, Proven::Own));
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
