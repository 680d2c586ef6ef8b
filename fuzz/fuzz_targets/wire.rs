//! Any bytes as any message, signed or plain, and as a topic: refused, or read and written again.

#![no_main]

#[path = "../src/allocator.rs"]
mod allocator;
#[path = "../src/wire.rs"]
mod wire;

use libfuzzer_sys::fuzz_target;

/// A message has at most 128 KiB and is held a few times over: as bytes, as its frozen form, as a value.
#[global_allocator]
static ALLOCATOR: allocator::Limited = allocator::Limited { at_once: 1 << 20, alive: 8 << 20 };

fuzz_target!(|bytes: &[u8]| {
    wire::attempt(bytes);
});
