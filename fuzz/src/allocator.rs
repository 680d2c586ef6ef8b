//! An allocator with a limit: what asks for more ends the process, which a fuzzer reports.
//!
//! With the limits on sizes that hold under `cfg(fuzzing)` one value takes at most 512 KiB
//! (`trainer/src/graph/limits.rs`), and a file of at most 64 KiB makes no more than a few hundred. The
//! largest request that is meant is the parser's: for a list it reserves as many elements as the file
//! says that there are bytes, but at most 10 million, 80 MB. What is over 96 MiB, or over 512 MiB alive
//! at a time, was asked for by a number that nobody checked.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

const MAX_AT_ONCE: usize = 96 << 20;
const MAX_ALIVE: usize = 512 << 20;

static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with the limits.
pub struct Limited;

fn grow(by: usize) {
    let alive = ALIVE.fetch_add(by, Ordering::Relaxed) + by;
    if by > MAX_AT_ONCE || alive > MAX_ALIVE {
        // Nothing may be allocated here, so no message is formatted.
        let text: &[u8] = b"an allocation is over its limit\n";
        let _ = std::io::Write::write(&mut std::io::stderr(), text);
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator as it is; only sizes are counted besides.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        ALIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(old, layout) }
    }
}
