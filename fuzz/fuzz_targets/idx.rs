//! Any bytes as an IDX file, of pictures and of labels.

#![no_main]

#[path = "../src/allocator.rs"]
mod allocator;
#[path = "../src/idx.rs"]
mod idx;

use libfuzzer_sys::fuzz_target;

/// A file is never larger than the input and is read picture by picture.
#[global_allocator]
static ALLOCATOR: allocator::Limited = allocator::Limited { at_once: 1 << 20, alive: 4 << 20 };

fuzz_target!(|bytes: &[u8]| {
    idx::attempt(bytes);
});
