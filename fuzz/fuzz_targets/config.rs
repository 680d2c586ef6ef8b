//! Any text as the agent's configuration.

#![no_main]

#[path = "../src/allocator.rs"]
mod allocator;
#[path = "../src/config.rs"]
mod config;

use libfuzzer_sys::fuzz_target;

/// An input has at most 64 KiB; a table of the shortest entries makes a hundred bytes of each byte.
#[global_allocator]
static ALLOCATOR: allocator::Limited = allocator::Limited { at_once: 8 << 20, alive: 32 << 20 };

fuzz_target!(|bytes: &[u8]| {
    config::attempt(bytes);
});
