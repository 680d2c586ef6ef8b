//! Any release metadata: what a hub, or whoever has its place, answers to a device.

#![no_main]

#[path = "../src/allocator.rs"]
mod allocator;
#[path = "../src/metadata.rs"]
mod metadata;

use libfuzzer_sys::fuzz_target;

/// An input has at most 64 KiB; a map of the shortest entries makes a few hundred bytes of each byte.
#[global_allocator]
static ALLOCATOR: allocator::Limited = allocator::Limited { at_once: 16 << 20, alive: 64 << 20 };

fuzz_target!(|bytes: &[u8]| {
    metadata::attempt(bytes);
});
