//! Any bytes as an ONNX file: refused or run, without a panic or an allocation over the limit.
//!
//! Half of the mutations are libFuzzer's, of bytes; the other half change the model they hold, so
//! that what comes out is still one: nodes, attributes, shapes, constants.

#![no_main]

#[path = "../src/allocator.rs"]
mod allocator;
#[path = "../src/damage.rs"]
mod damage;
#[path = "../src/model.rs"]
mod model;

use std::sync::Once;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use trainer::random::Random;

/// With the limits on sizes that hold under `cfg(fuzzing)` one value takes at most 512 KiB
/// (`trainer/src/graph/limits.rs`), and a file of at most 64 KiB makes no more than a few hundred. The
/// largest request that is meant is the parser's: for a list it reserves as many elements as the file
/// says that there are bytes, but at most 10 million, 80 MB.
#[global_allocator]
static ALLOCATOR: allocator::Limited = allocator::Limited { at_once: 96 << 20, alive: 512 << 20 };

/// One thread, the fuzzer's own: others would cost more than they do on tensors this small.
static ONE_THREAD: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    ONE_THREAD.call_once(|| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
        pool.build_global().expect("the first to make it");
    });
    model::attempt(bytes);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(u64::from(seed));
    let other = (random.below(2) == 0).then(|| damage::model(&data[..size], &mut random));
    match other.flatten().filter(|bytes| bytes.len() <= max_size) {
        Some(bytes) => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});
