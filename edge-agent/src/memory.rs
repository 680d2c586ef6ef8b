//! How the C library's allocator treats what is freed.
//!
//! As it comes, glibc keeps what loading a model and encoding a picture once needed. A device runs one
//! model for months: here blocks from [`KEPT_BYTES`] on have a mapping of their own and go back to the
//! system when they are freed. The opposite of `trainer/src/memory.rs`, whose steps want the same blocks
//! again and again.
//!
//! What is free between smaller blocks that are in use stays: each thread's heap would reach, over hours
//! of swaps and faults, the most that its thread ever held. So [`trim`] is for once in a while.
//!
//! How many heaps there are is left as it comes, as many as threads: in one that it shares, a thread that
//! frames wait for waits for one that gave way in the middle of an allocation.

use std::time::Duration;

/// How often a running agent gives back what is free between blocks: seldom enough to cost nothing, and
/// soon after a swap.
pub const TRIM_EVERY: Duration = Duration::from_secs(60);

/// Freed blocks of this size and more, and as much at the end of a heap, go back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 64 * 1024;

/// Gives freed memory back to the system from now on, in the whole process. Has to run before
/// threads are made. Does nothing where the C library is another one.
pub fn give_back_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt only sets numbers of the allocator; no other thread runs yet.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        }
    }
}

/// Gives the system the pages that are free in any heap. A thread that allocates meanwhile waits at most
/// for its own heap's turn. Does nothing where the C library is another one.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: malloc_trim gives back pages of blocks that are free, under the allocator's locks.
        #[allow(unsafe_code)]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;
    use crate::telemetry::rss_bytes;

    #[test]
    fn what_is_free_between_blocks_in_use_goes_back_from_every_threads_heap() {
        let (made, done) = std::sync::mpsc::sync_channel(1);
        let heap = std::thread::spawn(move || {
            // Blocks below the threshold of a mapping of their own. Every hundredth stays in use, so
            // that freeing the others leaves holes that the allocator keeps.
            let blocks: Vec<Vec<u8>> = (0..16_384).map(|_| vec![1; 16 << 10]).collect();
            let in_use: Vec<Vec<u8>> = blocks.into_iter().step_by(100).collect();
            made.send(()).unwrap();
            std::thread::park();
            in_use.len()
        });
        done.recv().unwrap();
        let before = rss_bytes();
        trim();
        let after = rss_bytes();
        heap.thread().unpark();
        assert_eq!(heap.join().unwrap(), 164);
        assert!(before > after + (100 << 20), "{before} bytes, then {after} bytes");
    }
}
