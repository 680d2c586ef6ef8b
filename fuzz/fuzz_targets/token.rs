//! Any text as an enrolment token, and any bytes inside one whose checksum holds.

#![no_main]

#[path = "../src/allocator.rs"]
mod allocator;
#[path = "../src/token.rs"]
mod token;

use libfuzzer_sys::fuzz_target;

/// A token has at most 1024 characters; whatever length they claim inside, the decoder asks for no more
/// than a message may have, 128 KiB.
#[global_allocator]
static ALLOCATOR: allocator::Limited = allocator::Limited { at_once: 256 << 10, alive: 2 << 20 };

fuzz_target!(|bytes: &[u8]| {
    token::attempt(bytes);
});
