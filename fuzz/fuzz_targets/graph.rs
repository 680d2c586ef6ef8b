//! Any bytes as an ONNX file at a door.

#![no_main]

#[path = "../src/allocator.rs"]
mod allocator;
#[path = "../src/graph.rs"]
mod graph;

use libfuzzer_sys::fuzz_target;

/// An input has at most 64 KiB, and nothing of it is copied but operators' names.
#[global_allocator]
static ALLOCATOR: allocator::Limited = allocator::Limited { at_once: 4 << 20, alive: 16 << 20 };

fuzz_target!(|bytes: &[u8]| {
    graph::attempt(bytes);
});
