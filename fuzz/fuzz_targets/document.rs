//! Any text as each JSON document that agent, hub and worker exchange.

#![no_main]

#[path = "../src/allocator.rs"]
mod allocator;
#[path = "../src/document.rs"]
mod document;

use libfuzzer_sys::fuzz_target;

/// An input has at most 64 KiB; a list of the shortest elements makes a hundred bytes of each byte.
#[global_allocator]
static ALLOCATOR: allocator::Limited = allocator::Limited { at_once: 8 << 20, alive: 32 << 20 };

fuzz_target!(|bytes: &[u8]| {
    document::attempt(bytes);
});
