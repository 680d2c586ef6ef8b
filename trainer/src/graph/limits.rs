//! How large values may be. A fuzzer looks for what is wrong at a limit, not for how long it takes
//! to get there: under `cfg(fuzzing)` the limits are lower, so that a run is short.

const fn limit(elements: usize, fuzzing: usize) -> usize {
    if cfg!(fuzzing) { fuzzing } else { elements }
}

/// The most elements of one value, and of what a kernel makes on the way to it: 1 GiB of floats.
pub const MAX_ELEMENTS: usize = limit(1 << 28, 1 << 16);

/// The most elements of a value that is computed when the model is loaded; a larger one is computed
/// in every pass.
pub const MAX_FOLDED_ELEMENTS: usize = limit(1 << 24, 1 << 12);

/// The most elements of all values that are computed when the model is loaded.
pub const MAX_FOLDED_TOGETHER: usize = limit(1 << 26, 1 << 14);
