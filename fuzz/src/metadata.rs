//! What is done with a channel's metadata: a device that trusts the first file walks over the others.
//!
//! An input is files, each ended by a line [`END`]: the root that the device pinned when it enrolled,
//! then what the hub answers, in the order in which it is asked. The device walks twice, the second time
//! over the files it trusts by then, as after a restart. The fuzz target and the test that runs every
//! file of `seeds/metadata/` share this file.

use edge_agent::update::tuf::{TrustedState, Walk};
use fleetloop_protocol::{Digest, UnixMillis};

/// What ends a file of an input.
pub const END: &str = "\n--\n";

/// The time of the walk: 2026-01-01T00:00:00Z.
pub const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

/// Walks over `bytes`; whether the walk came to its end.
///
/// # Panics
/// When versions go back.
pub fn attempt(bytes: &[u8]) -> bool {
    let mut files = split(bytes);
    let Some(root) = files.next() else { return false };
    let Ok(trusted) = TrustedState::begin(root, Digest::of(root)) else { return false };
    let answers: Vec<&[u8]> = files.collect();
    let (first, after) = walk(trusted, &answers);
    let (second, _) = walk(after, &answers);
    first || second
}

fn walk(trusted: TrustedState, answers: &[&[u8]]) -> (bool, TrustedState) {
    let before = trusted.versions();
    let mut walk = Walk::new(trusted, NOW);
    let mut answers = answers.iter();
    let mut held = true;
    while held && matches!(walk.want(), Ok(Some(_))) {
        // An empty file stands for one that is not there.
        let answer = answers.next().filter(|bytes| !bytes.is_empty());
        held = walk.take(answer.map(|bytes| bytes.to_vec())).is_ok();
    }
    let after = walk.trusted().clone();
    assert!(after.versions()[0] >= before[0], "the root goes back");
    (walk.finish().is_ok(), after)
}

fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.filter(|bytes| !bytes.is_empty())?;
        let end = bytes.windows(END.len()).position(|window| window == END.as_bytes());
        rest = end.map(|at| &bytes[at + END.len()..]);
        Some(&bytes[..end.unwrap_or(bytes.len())])
    })
}
