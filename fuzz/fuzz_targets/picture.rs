//! Any bytes as a PNG and as a JPEG.

#![no_main]

#[path = "../src/allocator.rs"]
mod allocator;
#[path = "../src/picture.rs"]
mod picture;

use libfuzzer_sys::fuzz_target;

/// Under `cfg(fuzzing)` a picture has at most 64 Ki pixels (`models/src/picture.rs`). The decoders hold it
/// a few times over, and tables and windows besides.
#[global_allocator]
static ALLOCATOR: allocator::Limited = allocator::Limited { at_once: 4 << 20, alive: 32 << 20 };

fuzz_target!(|bytes: &[u8]| {
    picture::attempt(bytes);
});
