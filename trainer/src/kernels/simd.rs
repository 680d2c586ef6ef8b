//! The door to wide instructions: a loop is compiled for processors with AVX-512, for those with
//! AVX2 and fused multiply-add, and for what every target has; which one runs is found out when it
//! runs.

use std::sync::LazyLock;

use pulp::{Scalar256b, Simd};

/// A loop that is compiled for each kind of processor. Its body, and what it calls, has to be
/// `#[inline(always)]`, or that part is compiled for the plainest one only.
pub trait Loop {
    /// What it gives.
    type Output;

    /// The loop. The numbers are those of [`Tiling`], known to the compiler.
    fn run<S: Simd, const HEIGHT: usize, const ROWS: usize, const COLUMNS: usize>(
        self,
        simd: S,
    ) -> Self::Output;
}

/// How matrices are cut so that the accumulators of a block fill the vector registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of a block of a product.
    pub height: usize,
    /// Columns of a panel: three vectors.
    pub width: usize,
    /// Rows of a block of inner products on the plain side.
    pub rows: usize,
    /// Rows of a block of inner products on the packed side.
    pub columns: usize,
    /// What the processor calls it, for a run's record.
    pub name: &'static str,
}

/// Vectors in a row of a panel.
pub const VECTORS: usize = 3;

/// The tiling of this processor.
pub static TILING: LazyLock<Tiling> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    if pulp::x86::V4::try_new().is_some() {
        return Tiling { height: 8, width: 16 * VECTORS, rows: 4, columns: 4, name: "avx512" };
    }
    #[cfg(target_arch = "x86_64")]
    if pulp::x86::V3::try_new().is_some() {
        return Tiling { height: 4, width: 8 * VECTORS, rows: 3, columns: 4, name: "avx2" };
    }
    Tiling { height: 4, width: 8 * VECTORS, rows: 3, columns: 4, name: "plain" }
});

/// Runs a loop with the widest instructions that are at hand.
#[inline(always)]
pub fn run<L: Loop>(work: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        return simd.vectorize(
            #[inline(always)]
            || work.run::<_, 8, 4, 4>(simd),
        );
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(
            #[inline(always)]
            || work.run::<_, 4, 3, 4>(simd),
        );
    }
    work.run::<_, 4, 3, 4>(Scalar256b)
}

/// Runs a plain loop, compiled for wide instructions. The closure has to be `#[inline(always)]`.
#[inline(always)]
pub fn wide(work: impl FnOnce()) {
    struct Wide<W>(W);

    impl<W: FnOnce()> Loop for Wide<W> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd, const H: usize, const R: usize, const C: usize>(self, _: S) {
            (self.0)();
        }
    }

    run(Wide(work));
}
