//! Our own operations on the processor, for what a training step spends its time in: convolution,
//! normalisation by the batch, the largest of a window, ReLU.
//!
//! burn's `flex` backend does these through other layouts and one pass of memory for every
//! arithmetic operation; here each is one or two passes, and the gradient keeps no more than it
//! needs. `cargo xtask bench trainer` measures it. Everything else is burn's, and so are these on
//! other devices.
//!
//! | module | what it does |
//! |---|---|
//! | `simd` | one loop, compiled for several kinds of processors |
//! | `geometry` | what a convolution reads and writes, as matrices |
//! | `panels` | the factors of a product in the order in which they are read |
//! | `product` | the two products that convolutions are made of |
//! | `conv`, `norm`, `pool`, `pointwise` | the operations and their gradients, over slices |
//! | `flex` | the same over burn's tensors |
//! | `autodiff` | what is kept for the way back |
//!
//! No result depends on the number of threads. It does depend on the kind of processor, whose name
//! is part of a run's record ([`Instructions`]).

mod autodiff;
mod conv;
mod flex;
mod geometry;
mod norm;
mod panels;
mod pointwise;
mod pool;
mod product;
mod simd;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

pub use geometry::{Geometry, Windows};
pub use pool::MOST_ENTRIES;
pub use simd::{Instructions, wide};

/// Runs work on the threads that compute, so that its operations are not handed over one by one.
pub fn together<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}

/// Operations that burn's own backends do not have in this form.
#[backend_extension(Flex, Autodiff)]
pub trait Kernels: Backend {
    /// Convolution of `[batch, channels, plane…]` with `[filters, channels, kernel…]`, in one or two
    /// dimensions.
    fn convolve(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self>;

    /// The same with a bias for each filter.
    fn convolve_biased(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self>;

    /// Normalises each channel of `[batch, channels, …]` by the batch; the result, the means and the
    /// population's variances.
    fn normalise(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
        rectified: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The largest entry of each window.
    fn largest(x: FloatTensor<Self>, windows: Windows) -> FloatTensor<Self>;

    /// What is negative becomes zero.
    fn rectify(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The sum of two values of one shape; what is negative becomes zero.
    fn add_rectified(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}
