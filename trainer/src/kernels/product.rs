//! The two products that convolutions are made of.
//!
//! [`Product`] is filters times an unfolded matrix, written into planes. [`Outer`] is rows of planes
//! times the rows of an unfolded matrix, inner product by inner product: the gradient of the filters,
//! with nothing transposed. The work is cut in parts that depend on the shapes alone, and every sum
//! runs in one order, so that the result does not depend on the number of threads.

use std::cell::RefCell;
use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

use super::geometry::{Placement, Unfolded};
use super::panels::{Columns, DEPTH, Left, SLACK};
use super::simd::{self, Loop, VECTORS, tiling};

/// Columns that are packed at a time.
const COLUMNS: usize = 240;

/// Columns over which inner products run at a time.
const DOT_COLUMNS: usize = 960;

/// Rows of an unfolded matrix that one part of an [`Outer`] product takes, about.
const DOT_ROWS: usize = 64;

/// What a part of a product needs beside its result; kept for the next one.
struct Scratch {
    panels: Vec<f32>,
    sums: Vec<f32>,
}

thread_local! {
    /// Padded planes, and the rest.
    static SCRATCH: RefCell<(Vec<f32>, Scratch)> =
        const { RefCell::new((Vec::new(), Scratch { panels: Vec::new(), sums: Vec::new() })) };
}

/// Filters times an unfolded matrix.
pub struct Product<'a> {
    pub left: &'a Left,
    pub unfolded: &'a Unfolded,
    pub placement: Placement,
    /// Added to each row.
    pub bias: Option<&'a [f32]>,
}

impl Product<'_> {
    /// Computes the product for pictures, `[pictures, channels, plane]`, and writes it into
    /// `[pictures, rows, plane]`.
    pub fn run(&self, pictures: &[f32], out: &mut [f32]) {
        let [height, width] = self.unfolded.plane;
        let (from, to) =
            (self.unfolded.channels * height * width, self.left.rows * self.placement.plane);
        let count = pictures.len() / from;
        let threads = rayon::current_num_threads();
        let together = COLUMNS.div_ceil(self.unfolded.places()).clamp(1, count.div_ceil(threads));
        let parts = out.par_chunks_mut(together * to).zip(pictures.par_chunks(together * from));
        parts.for_each(|(out, pictures)| {
            SCRATCH.with_borrow_mut(|(planes, scratch)| {
                self.unfolded.pad(pictures, 0..self.unfolded.channels, SLACK, planes);
                simd::run(Part { product: self, planes, scratch, out });
            });
        });
    }

    /// Whether the columns of a panel go to one run of each plane.
    #[inline(always)]
    fn is_together(&self, column: usize, columns: usize, width: usize) -> bool {
        let places = self.unfolded.places();
        columns == width && self.placement.is_dense() && column % places + width <= places
    }

    /// Writes the sums of some columns, `COLUMNS` from row to row, to where they go.
    #[inline(always)]
    fn scatter(&self, sums: &[f32], columns: Range<usize>, out: &mut [f32]) {
        let mut offsets = [0; 64];
        for (offset, column) in offsets.iter_mut().zip(columns.clone()) {
            *offset = self.offset(column);
        }
        for (row, sums) in sums.chunks(COLUMNS).enumerate().take(self.left.rows) {
            let out = &mut out[row * self.placement.plane..];
            for (offset, sum) in offsets.iter().zip(&sums[..columns.len()]) {
                out[*offset] = *sum;
            }
        }
    }

    /// Where a column of some pictures' matrix goes.
    #[inline(always)]
    fn offset(&self, column: usize) -> usize {
        let places = self.unfolded.places();
        let (image, place) = (column / places, column % places);
        let place = if self.placement.is_dense() {
            place
        } else {
            self.placement.offset(place, self.unfolded.grid[1])
        };
        image * self.left.rows * self.placement.plane + place
    }
}

/// A product for some pictures.
struct Part<'a> {
    product: &'a Product<'a>,
    planes: &'a [f32],
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl Loop for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const HEIGHT: usize, const ROWS: usize, const DOTS: usize>(self, simd: S) {
        let Self { product, planes, scratch, out } = self;
        let Product { left, unfolded, placement, .. } = *product;
        let width = VECTORS * S::F32_LANES;
        let count = out.len() / (left.rows * placement.plane) * unfolded.places();
        for first in (0..count).step_by(COLUMNS) {
            let range = first..count.min(first + COLUMNS);
            let columns = Columns::new(unfolded, range, unfolded.channels, tiling());
            scratch.sums.resize(left.rows * COLUMNS, 0.0);
            for from in (0..left.depth).step_by(DEPTH) {
                let depth = from..left.depth.min(from + DEPTH);
                let begun = from > 0;
                columns.pack(depth.clone(), planes, &mut scratch.panels);
                let panels = scratch.panels.chunks_exact(depth.len() * width);
                for (panel, right) in panels.take(columns.panels()).enumerate() {
                    let column = first + panel * width;
                    let direct = product.is_together(column, columns.filled(panel), width);
                    for (block, left_block) in left.blocks(depth.clone()).enumerate() {
                        let sums = product_block::<S, HEIGHT>(simd, left_block, right);
                        let row = block * HEIGHT;
                        let sums = &sums[..HEIGHT.min(left.rows - row)];
                        // On either way the bias comes first: which one is taken depends on the
                        // number of threads.
                        let bias = product.bias.filter(|_| !begun).map(|bias| &bias[row..]);
                        if direct {
                            let at = product.offset(column) + row * placement.plane;
                            add(simd, sums, begun, out[at..].chunks_mut(placement.plane), bias);
                        } else {
                            let to = &mut scratch.sums[row * COLUMNS + panel * width..];
                            add(simd, sums, begun, to.chunks_mut(COLUMNS), bias);
                        }
                    }
                }
            }
            for panel in 0..columns.panels() {
                let (column, filled) = (first + panel * width, columns.filled(panel));
                if !product.is_together(column, filled, width) {
                    let sums = &scratch.sums[panel * width..];
                    product.scatter(sums, column..column + filled, out);
                }
            }
        }
    }
}

/// Adds a block to rows that begin with it, or writes it there.
#[inline(always)]
fn add<'a, S: Simd>(
    simd: S,
    sums: &[[S::f32s; VECTORS]],
    begun: bool,
    rows: impl Iterator<Item = &'a mut [f32]>,
    bias: Option<&[f32]>,
) {
    let zero = simd.splat_f32s(0.0);
    for (row, (sums, to)) in sums.iter().zip(rows).enumerate() {
        let bias = bias.map_or(zero, |bias| simd.splat_f32s(bias[row]));
        let (to, _) = S::as_mut_simd_f32s(&mut to[..VECTORS * S::F32_LANES]);
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = simd.add_f32s(*sum, if begun { *to } else { bias });
        }
    }
}

/// The product of a packed block of rows and a panel over the same depth.
#[inline(always)]
fn product_block<S: Simd, const HEIGHT: usize>(
    simd: S,
    left: &[f32],
    right: &[f32],
) -> [[S::f32s; VECTORS]; HEIGHT] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; HEIGHT];
    let (left, _) = left.as_chunks::<HEIGHT>();
    let (right, _) = S::as_simd_f32s(right).0.as_chunks::<VECTORS>();
    for (a, b) in left.iter().zip(right) {
        for row in 0..HEIGHT {
            let a = simd.splat_f32s(a[row]);
            for lane in 0..VECTORS {
                sums[row][lane] = simd.mul_add_e_f32s(a, b[lane], sums[row][lane]);
            }
        }
    }
    sums
}

/// Rows of planes times the rows of an unfolded matrix: `[rows, depth]`, where `depth` are the rows of
/// the unfolded matrix and the sum runs over pictures and places.
pub struct Outer<'a> {
    pub unfolded: &'a Unfolded,
    pub rows: usize,
}

impl Outer<'_> {
    /// Computes it for `planes`, `[pictures, rows, places]`, and `pictures`, `[pictures, channels,
    /// plane]`.
    pub fn run(&self, planes: &[f32], pictures: &[f32]) -> Vec<f32> {
        let mut parts = self.parts();
        let places = self.unfolded.places();
        let [height, width] = self.unfolded.plane;
        let (from, to) = (self.unfolded.channels * height * width, self.rows * places);
        let together = DOT_COLUMNS.div_ceil(places);
        for (pictures, planes) in pictures.chunks(together * from).zip(planes.chunks(together * to))
        {
            let columns = planes.len() / self.rows;
            for first in (0..columns).step_by(DOT_COLUMNS) {
                let range = first..columns.min(first + DOT_COLUMNS);
                let rows = self.lined_up(planes, &range);
                parts.par_iter_mut().for_each(|part| {
                    self.part(&rows, pictures, range.clone(), part);
                });
            }
        }
        self.joined(&parts)
    }

    fn parts(&self) -> Vec<Channels> {
        let channels = self.unfolded.channels;
        let together = (DOT_ROWS / self.unfolded.rows(1)).clamp(1, channels);
        let rows = self.rows.next_multiple_of(tiling().rows);
        let part = |start: usize| {
            let range = start..channels.min(start + together);
            let depth = self.unfolded.rows(range.len());
            let wide = depth.next_multiple_of(tiling().columns);
            Channels { range, depth, wide, sums: vec![0.0; rows * wide] }
        };
        (0..channels).step_by(together).map(part).collect()
    }

    fn joined(&self, parts: &[Channels]) -> Vec<f32> {
        let depth = self.unfolded.rows(self.unfolded.channels);
        let mut out = Vec::with_capacity(self.rows * depth);
        for row in 0..self.rows {
            for part in parts {
                out.extend_from_slice(&part.sums[row * part.wide..][..part.depth]);
            }
        }
        out
    }

    fn part(&self, rows: &[f32], pictures: &[f32], range: Range<usize>, part: &mut Channels) {
        SCRATCH.with_borrow_mut(|(padded, Scratch { panels, .. })| {
            self.unfolded.pad(pictures, part.range.clone(), SLACK, padded);
            let columns = Columns::new(self.unfolded, range, part.range.len(), tiling());
            columns.pack(0..part.depth, padded, panels);
            simd::run(Dots { rows, panels, count: columns.panels(), part });
        });
    }

    /// Some columns of each row of `planes`, one row after another, as many columns as whole panels
    /// have.
    fn lined_up(&self, planes: &[f32], range: &Range<usize>) -> Vec<f32> {
        let places = self.unfolded.places();
        let wide = range.len().next_multiple_of(tiling().width);
        let mut rows = vec![0.0; self.rows.next_multiple_of(tiling().rows) * wide];
        for (row, to) in rows.chunks_exact_mut(wide).enumerate().take(self.rows) {
            let mut column = range.start;
            while column < range.end {
                let (image, place) = (column / places, column % places);
                let count = (places - place).min(range.end - column);
                let from = (image * self.rows + row) * places + place;
                to[column - range.start..][..count].copy_from_slice(&planes[from..from + count]);
                column += count;
            }
        }
        rows
    }
}

/// The part of an [`Outer`] product that some channels give.
struct Channels {
    range: Range<usize>,
    /// Their rows of the unfolded matrix, and that rounded up to whole blocks.
    depth: usize,
    wide: usize,
    /// `[rows, wide]`, the rows rounded up too.
    sums: Vec<f32>,
}

/// Inner products of rows with packed rows, added to the sums.
struct Dots<'a> {
    rows: &'a [f32],
    panels: &'a mut Vec<f32>,
    count: usize,
    part: &'a mut Channels,
}

impl Loop for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const HEIGHT: usize, const ROWS: usize, const COLUMNS: usize>(self, simd: S) {
        let Channels { depth, wide, sums: out, .. } = self.part;
        let (depth, wide) = (*depth, *wide);
        let (rows, _) = S::as_simd_f32s(self.rows).0.as_chunks::<VECTORS>();
        // The rows behind the depth that a last block reads are of other panels, or stale: what
        // they give is left out.
        let spare = COLUMNS * VECTORS * S::F32_LANES;
        let needed = self.count * depth * VECTORS * S::F32_LANES + spare;
        if self.panels.len() < needed {
            self.panels.resize(needed, 0.0);
        }
        let (panels, _) = S::as_simd_f32s(self.panels).0.as_chunks::<VECTORS>();
        for from in (0..depth).step_by(COLUMNS) {
            for first in (0..rows.len() / self.count).step_by(ROWS) {
                let mut sums = [[simd.splat_f32s(0.0); COLUMNS]; ROWS];
                let rows: [&[[S::f32s; VECTORS]]; ROWS] =
                    std::array::from_fn(|row| &rows[(first + row) * self.count..][..self.count]);
                for panel in 0..self.count {
                    let right = &panels[panel * depth + from..][..COLUMNS];
                    for lane in 0..VECTORS {
                        for row in 0..ROWS {
                            let a = rows[row][panel][lane];
                            for column in 0..COLUMNS {
                                let old = sums[row][column];
                                sums[row][column] =
                                    simd.mul_add_e_f32s(a, right[column][lane], old);
                            }
                        }
                    }
                }
                for row in 0..ROWS {
                    for column in 0..COLUMNS {
                        out[(first + row) * wide + from + column] +=
                            simd.reduce_sum_f32s(sums[row][column]);
                    }
                }
            }
        }
    }
}
