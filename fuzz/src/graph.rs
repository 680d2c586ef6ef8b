//! What is done with the bytes of an ONNX file at a door: they are checked before a runtime sees them.
//!
//! The fuzz target and the test that runs every file of `seeds/graph/` share this file.

use fleetloop_models::graph::Graph;

/// One more training step, whose first graph has a weight in another file.
const ELSEWHERE: [u8; 9] = [0xa2, 1, 6, 0x0a, 4, 0x2a, 2, 0x70, 1];

/// Checks `bytes` as a graph; whether it may be run.
///
/// # Panics
/// When data elsewhere are not seen behind what was accepted.
pub fn attempt(bytes: &[u8]) -> bool {
    let Ok(graph) = Graph::check(bytes.to_vec()) else { return false };
    assert_eq!(graph.bytes(), bytes);
    assert!(Graph::check([bytes, &ELSEWHERE].concat()).is_err());
    true
}
