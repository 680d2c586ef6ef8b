//! Packing: the two factors of a product in the order in which its inner loop reads them.
//!
//! The left factor lies as `[block of rows][depth][height]`, the right one, a part of
//! an [`Unfolded`] matrix, as `[panel][depth][width]`: a panel is `width` columns. Both are cut by
//! [`Tiling`] (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication").

use std::ops::Range;

use rayon::prelude::*;

use super::geometry::Unfolded;
use super::simd::Tiling;

/// The most depth of a block: a panel of it and a block of rows stay in a first-level cache, more
/// or less.
pub const DEPTH: usize = 192;

/// Elements that are copied at a time when columns lie side by side.
const CHUNK: usize = 16;

/// The left factor, packed whole.
pub struct Left {
    pub rows: usize,
    pub depth: usize,
    height: usize,
    values: Vec<f32>,
}

impl Left {
    /// Packs a matrix `[rows, depth]`.
    pub fn pack(rows: usize, depth: usize, tiling: Tiling, matrix: &[f32]) -> Self {
        let height = tiling.height;
        Self::filled(rows, depth, height, |block, values| {
            let rows = &matrix[block * height * depth..rows.min((block + 1) * height) * depth];
            // A few cache lines of each row at a time, for the rows lie far apart.
            for (from, to) in values.chunks_mut(CHUNK * height).enumerate() {
                for (place, row) in rows.chunks_exact(depth).enumerate() {
                    let row = &row[from * CHUNK..];
                    for (to, value) in to.chunks_exact_mut(height).zip(row) {
                        to[place] = *value;
                    }
                }
            }
        })
    }

    /// Packs filters `[filters, channels, kernel]` with channels for rows, and filters and some
    /// entries of the kernel for depth.
    pub fn pack_turned(
        filters: &[f32],
        channels: usize,
        kernel: usize,
        taps: &[usize],
        tiling: Tiling,
    ) -> Self {
        let height = tiling.height;
        let depth = filters.len() / (channels * kernel) * taps.len();
        Self::filled(channels, depth, height, |block, values| {
            let range = block * height..channels.min((block + 1) * height);
            let filters = filters.chunks_exact(channels * kernel);
            for (filter, to) in filters.zip(values.chunks_exact_mut(taps.len() * height)) {
                let kernels = &filter[range.start * kernel..range.end * kernel];
                for (tap, to) in taps.iter().zip(to.chunks_exact_mut(height)) {
                    for (to, kernel) in to.iter_mut().zip(kernels.chunks_exact(kernel)) {
                        *to = kernel[*tap];
                    }
                }
            }
        })
    }

    fn filled(
        rows: usize,
        depth: usize,
        height: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let mut values = vec![0.0; rows.next_multiple_of(height) * depth];
        let blocks = values.par_chunks_mut(height * depth).enumerate();
        blocks.for_each(|(block, values)| fill(block, values));
        Self { rows, depth, height, values }
    }

    /// The packed blocks of rows for a range of the depth.
    #[inline(always)]
    pub fn blocks(&self, depth: Range<usize>) -> impl Iterator<Item = &[f32]> {
        let range = depth.start * self.height..depth.end * self.height;
        self.values.chunks_exact(self.height * self.depth).map(move |block| &block[range.clone()])
    }
}

/// Columns side by side in the planes that are read.
struct Run {
    /// Its first column in its panel.
    at: usize,
    /// The offset of that column's place.
    from: usize,
    columns: usize,
}

/// Some columns of an unfolded matrix.
pub struct Columns<'a> {
    unfolded: &'a Unfolded,
    width: usize,
    pub count: usize,
    /// The runs of all panels.
    runs: Vec<Run>,
    /// The first run of every panel, and the number of runs.
    panels: Vec<usize>,
}

impl<'a> Columns<'a> {
    /// Columns `range` of the matrix of some pictures with that many channels each.
    pub fn new(
        unfolded: &'a Unfolded,
        range: Range<usize>,
        channels: usize,
        tiling: Tiling,
    ) -> Self {
        let places = unfolded.places();
        let longest = unfolded.grid[1];
        let (mut runs, mut panels) = (Vec::new(), Vec::new());
        let mut column = range.start;
        while column < range.end {
            let at = (column - range.start) % tiling.width;
            if at == 0 {
                panels.push(runs.len());
            }
            let place = column % places;
            let columns =
                (longest - place % longest).min(tiling.width - at).min(range.end - column);
            let from = unfolded.place_offset(column / places, channels, place);
            runs.push(Run { at, from, columns });
            column += columns;
        }
        panels.push(runs.len());
        Self { unfolded, width: tiling.width, count: range.len(), runs, panels }
    }

    /// Number of panels; the last one may be filled in part.
    pub fn panels(&self) -> usize {
        self.panels.len() - 1
    }

    /// Columns of a panel that mean something.
    pub fn filled(&self, panel: usize) -> usize {
        self.width.min(self.count - panel * self.width)
    }

    /// Packs some rows out of padded planes; behind the last column come zeros.
    #[inline(always)]
    pub fn pack(&self, rows: Range<usize>, planes: &[f32], to: &mut Vec<f32>) {
        let needed = self.panels() * rows.len() * self.width + CHUNK;
        if to.len() < needed {
            to.resize(needed, 0.0);
        }
        let mut at = 0;
        for (panel, runs) in self.panels.windows(2).enumerate() {
            let runs = &self.runs[runs[0]..runs[1]];
            let filled = self.filled(panel);
            for row in rows.clone() {
                let offset = self.unfolded.row_offset(row);
                for run in runs {
                    // Whole chunks: what is too much is overwritten by what comes next.
                    let (from, to) = (&planes[run.from + offset..], &mut to[at + run.at..]);
                    for chunk in (0..run.columns).step_by(CHUNK) {
                        to[chunk..chunk + CHUNK].copy_from_slice(&from[chunk..chunk + CHUNK]);
                    }
                }
                to[at + filled..at + self.width].fill(0.0);
                at += self.width;
            }
        }
    }
}

/// Zeros that have to follow planes which are packed.
pub const SLACK: usize = CHUNK;
