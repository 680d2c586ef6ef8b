//! An allocator with a limit: what asks for more ends the process, which a fuzzer reports.
//!
//! Each target says what its decoder may ask for: at once, and alive at a time. What is over either was
//! asked for by a number in the input that nobody checked. libFuzzer's own memory is not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with the limits in bytes.
pub struct Limited {
    /// The largest request.
    pub at_once: usize,
    /// The most that may be allocated at a time.
    pub alive: usize,
}

impl Limited {
    fn grow(&self, by: usize) {
        let alive = ALIVE.fetch_add(by, Ordering::Relaxed) + by;
        if by > self.at_once || alive > self.alive {
            // Nothing may be allocated here, so no message is formatted.
            let text: &[u8] = b"an allocation is over its limit\n";
            let _ = std::io::Write::write(&mut std::io::stderr(), text);
            std::process::abort();
        }
    }
}

// SAFETY: every call goes to the system's allocator as it is; only sizes are counted besides.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.grow(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.grow(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.grow(size);
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
