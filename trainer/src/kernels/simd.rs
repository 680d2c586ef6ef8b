//! The door to wide instructions: a loop is compiled for processors with AVX-512, for those with
//! AVX2 and fused multiply-add, and for what every target has; which one runs is found out when it
//! runs.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use pulp::{Scalar256b, Simd};

/// The instructions that are computed with. Results differ in the last bits from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// Sixteen lanes at a time.
    Avx512,
    /// Eight lanes at a time, with fused multiply-add.
    Avx2,
    /// What every target has.
    Plain,
}

static CHOSEN: OnceLock<Instructions> = OnceLock::new();

impl Instructions {
    /// All of them, the widest first.
    const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Plain];

    /// Those that this process computes with: the chosen ones, or the widest that are there.
    pub fn current() -> Self {
        let widest = || Self::ALL.into_iter().find(|i| i.are_there()).unwrap_or(Self::Plain);
        *CHOSEN.get_or_init(widest)
    }

    /// Computes with these from now on.
    ///
    /// # Errors
    /// The processor does not have them, or something was computed with others already.
    pub fn choose(self) -> Result<(), String> {
        if !self.are_there() {
            return Err(format!("this processor does not have the instructions {self}"));
        }
        match CHOSEN.get_or_init(|| self) {
            chosen if *chosen == self => Ok(()),
            chosen => Err(format!("this process computes with {chosen} already")),
        }
    }

    fn are_there(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Plain => true,
        }
    }

    /// How matrices are cut for them.
    pub fn tiling(self) -> Tiling {
        match self {
            Self::Avx512 => Tiling { height: 8, width: 16 * VECTORS, rows: 4, columns: 4 },
            Self::Avx2 | Self::Plain => {
                Tiling { height: 4, width: 8 * VECTORS, rows: 3, columns: 4 }
            }
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Plain => "plain",
        })
    }
}

impl FromStr for Instructions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|i| i.to_string() == text);
        known.ok_or_else(|| format!("'{text}' is none of avx512, avx2 and plain"))
    }
}

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
}

/// Vectors in a row of a panel.
pub const VECTORS: usize = 3;

/// The tiling of the instructions that this process computes with.
pub fn tiling() -> Tiling {
    Instructions::current().tiling()
}

/// Runs a loop with the instructions that this process computes with.
#[inline(always)]
pub fn run<L: Loop>(work: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    match Instructions::current() {
        Instructions::Avx512 => {
            if let Some(simd) = pulp::x86::V4::try_new() {
                return simd.vectorize(
                    #[inline(always)]
                    || work.run::<_, 8, 4, 4>(simd),
                );
            }
        }
        Instructions::Avx2 => {
            if let Some(simd) = pulp::x86::V3::try_new() {
                return simd.vectorize(
                    #[inline(always)]
                    || work.run::<_, 4, 3, 4>(simd),
                );
            }
        }
        Instructions::Plain => {}
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
