//! What a convolution reads and writes, as matrices.
//!
//! A convolution is a product: the filters as rows of a matrix, times a matrix whose row is a channel
//! and an entry of the kernel (a *tap*), and whose column is a picture and a place of the output
//! (Chellapilla et al. 2006). [`Unfolded`] is that second matrix, read straight out of planes that
//! have a margin of zeros, so that nothing asks where an edge is; where the stride is two, a row holds
//! its even columns first and then its odd ones, so that places follow each other without a gap. The
//! gradient of the input is such a product too: of the output's gradient, once for every remainder of
//! a place by the stride.

/// Windows over planes; in one dimension they have height one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Height and width of an input plane.
    pub input: [usize; 2],
    /// Height and width of an output plane.
    pub output: [usize; 2],
    /// Height and width of a kernel.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub strides: [usize; 2],
    /// Rows and columns from one entry of a kernel to the next.
    pub dilations: [usize; 2],
    /// Padding before the data.
    pub before: [usize; 2],
}

impl Windows {
    /// Entries of a kernel.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Elements of an input and an output plane.
    pub fn areas(&self) -> [usize; 2] {
        [self.input, self.output].map(|[height, width]| height * width)
    }
}

/// A convolution over planes. Groups are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Pictures.
    pub batch: usize,
    /// Planes of the input.
    pub channels: usize,
    /// Planes of the output.
    pub filters: usize,
    /// What each filter looks at.
    pub windows: Windows,
}

/// The most pairs of a remainder and a tap that are looked at for the gradient of an input.
const MOST_PRODUCTS: usize = 1 << 16;

/// Where the columns of a product lie in the planes that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Elements of a plane.
    pub plane: usize,
    /// Width of a plane.
    pub width: usize,
    /// First row and column.
    pub first: [usize; 2],
    /// Rows and columns from one place to the next.
    pub step: [usize; 2],
}

/// Planes read as a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfolded {
    pub channels: usize,
    /// Height and width of a plane that is read.
    pub plane: [usize; 2],
    /// Height and width of the grid of places.
    pub grid: [usize; 2],
    /// Rows and columns in the plane from one place to the next.
    pub step: [usize; 2],
    /// Rows and columns of zeros before the data.
    margin: [usize; 2],
    /// Height and width of a plane with its margins; the width is a multiple of the step.
    padded: [usize; 2],
    /// Each tap's offset in a plane with margins.
    taps: Vec<usize>,
}

/// One product of the gradient of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    pub unfolded: Unfolded,
    /// The taps' places in a filter's kernel.
    pub taps: Vec<usize>,
    pub placement: Placement,
}

impl Geometry {
    /// Whether what is needed beside inputs and outputs stays within `most` elements for each
    /// picture, and few products give the gradient of the input. What lies outside is odd: windows
    /// that reach far beyond the data, or strides over planes of hundreds of thousands of entries.
    pub fn is_modest(&self, most: usize) -> bool {
        let padded = |axis: usize, size: usize| {
            let reach = (self.windows.kernel[axis] - 1) * self.windows.dilations[axis] + 1;
            size.saturating_add(self.windows.before[axis]).saturating_add(2 * reach) * 2
        };
        let plane = |sizes: [usize; 2]| padded(0, sizes[0]).saturating_mul(padded(1, sizes[1]));
        let read = plane(self.windows.input).saturating_mul(self.channels);
        let back = plane(self.windows.output).saturating_mul(self.filters);
        let products = self.remainders(0) * self.remainders(1) * self.windows.taps();
        read <= most && back <= most && products <= MOST_PRODUCTS
    }

    /// The remainders by the stride that places along an axis have.
    fn remainders(&self, axis: usize) -> usize {
        self.windows.strides[axis].min(self.windows.input[axis])
    }

    /// The input as the product that gives the output reads it.
    pub fn unfolded(&self) -> Unfolded {
        let along = |axis: usize, tap: usize| {
            (tap * self.windows.dilations[axis]) as isize - self.windows.before[axis] as isize
        };
        let taps = (0..self.windows.kernel[0])
            .flat_map(|y| (0..self.windows.kernel[1]).map(move |x| [along(0, y), along(1, x)]));
        Unfolded::new(
            self.channels,
            self.windows.input,
            self.windows.output,
            self.windows.strides,
            &taps.collect::<Vec<_>>(),
        )
    }

    /// Where the output's columns lie: one after another.
    pub fn placement(&self) -> Placement {
        let [height, width] = self.windows.output;
        Placement { plane: height * width, width, first: [0, 0], step: [1, 1] }
    }

    /// The products that together give the gradient of the input. Places that no output reads are in
    /// none of them.
    pub fn phases(&self) -> Vec<Phase> {
        let remainders =
            (0..self.remainders(0)).flat_map(|y| (0..self.remainders(1)).map(move |x| [y, x]));
        remainders.filter_map(|first| self.phase(first)).collect()
    }

    fn phase(&self, first: [usize; 2]) -> Option<Phase> {
        let grid: [usize; 2] = std::array::from_fn(|a| {
            self.windows.input[a].saturating_sub(first[a]).div_ceil(self.windows.strides[a])
        });
        // The output that reads this place by tap k is (place + before − k · dilation) / stride.
        let from = |axis: usize, tap: usize| {
            let at = (first[axis] + self.windows.before[axis]) as isize
                - (tap * self.windows.dilations[axis]) as isize;
            let stride = self.windows.strides[axis] as isize;
            (at.rem_euclid(stride) == 0).then(|| at.div_euclid(stride))
        };
        let (mut offsets, mut taps) = (Vec::new(), Vec::new());
        for y in 0..self.windows.kernel[0] {
            for x in 0..self.windows.kernel[1] {
                if let (Some(dy), Some(dx)) = (from(0, y), from(1, x)) {
                    offsets.push([dy, dx]);
                    taps.push(y * self.windows.kernel[1] + x);
                }
            }
        }
        if taps.is_empty() || grid.contains(&0) {
            return None;
        }
        let unfolded = Unfolded::new(self.filters, self.windows.output, grid, [1, 1], &offsets);
        let [height, width] = self.windows.input;
        let placement =
            Placement { plane: height * width, width, first, step: self.windows.strides };
        Some(Phase { unfolded, taps, placement })
    }
}

impl Placement {
    /// Whether places follow each other without a gap.
    pub fn is_dense(&self) -> bool {
        self.step == [1, 1]
    }

    /// The offset in a plane of a place of a grid of that width.
    pub fn offset(&self, place: usize, grid_width: usize) -> usize {
        let (y, x) = (place / grid_width, place % grid_width);
        (self.first[0] + y * self.step[0]) * self.width + self.first[1] + x * self.step[1]
    }
}

impl Unfolded {
    fn new(
        channels: usize,
        plane: [usize; 2],
        grid: [usize; 2],
        step: [usize; 2],
        taps: &[[isize; 2]],
    ) -> Self {
        // From a single place no step is made.
        let step = std::array::from_fn(|a| if grid[a] == 1 { 1 } else { step[a] });
        let least = |axis: usize| taps.iter().map(|tap| tap[axis]).min().unwrap_or(0);
        let most = |axis: usize| taps.iter().map(|tap| tap[axis]).max().unwrap_or(0);
        let margin: [usize; 2] = std::array::from_fn(|a| usize::try_from(-least(a)).unwrap_or(0));
        let padded: [usize; 2] = std::array::from_fn(|a| {
            let reach = ((grid[a] - 1) * step[a]).saturating_add_signed(most(a)) + 1;
            let size = margin[a] + plane[a].max(reach);
            if a == 1 { size.next_multiple_of(step[1]) } else { size }
        });
        let offset = |tap: &[isize; 2]| {
            let [y, x] = std::array::from_fn(|a| margin[a].saturating_add_signed(tap[a]));
            y * padded[1] + x % step[1] * (padded[1] / step[1]) + x / step[1]
        };
        let taps = taps.iter().map(offset).collect();
        Self { channels, plane, grid, step, margin, padded, taps }
    }

    /// Rows of the matrix for that many channels.
    pub fn rows(&self, channels: usize) -> usize {
        channels * self.taps.len()
    }

    /// Columns of the matrix for one picture.
    pub fn places(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Elements of a plane with its margins.
    fn area(&self) -> usize {
        self.padded[0] * self.padded[1]
    }

    /// The offset that a row has in the planes of [`Unfolded::pad`].
    #[inline(always)]
    pub fn row_offset(&self, row: usize) -> usize {
        row / self.taps.len() * self.area() + self.taps[row % self.taps.len()]
    }

    /// The offset of a place of picture `image` in planes of that many channels.
    #[inline(always)]
    pub fn place_offset(&self, image: usize, channels: usize, place: usize) -> usize {
        let (y, x) = (place / self.grid[1], place % self.grid[1]);
        image * channels * self.area() + y * self.step[0] * self.padded[1] + x
    }

    /// Copies `channels` of each of some pictures, all of `self.channels` planes, between margins of
    /// zeros. `slack` more zeros follow, so that whole vectors may be read anywhere.
    pub fn pad(
        &self,
        pictures: &[f32],
        channels: std::ops::Range<usize>,
        slack: usize,
        to: &mut Vec<f32>,
    ) {
        let [height, width] = self.plane;
        let picture = self.channels * height * width;
        let planes = pictures.len() / picture * channels.len();
        to.clear();
        to.resize(planes * self.area() + slack, 0.0);
        let from = pictures.chunks_exact(picture).flat_map(|picture| {
            picture[channels.start * height * width..channels.end * height * width]
                .chunks_exact(height * width)
        });
        for (from, to) in from.zip(to.chunks_exact_mut(self.area())) {
            let rows = to.chunks_exact_mut(self.padded[1]).skip(self.margin[0]);
            for (from, to) in from.chunks_exact(width).zip(rows) {
                self.pad_row(from, to);
            }
        }
    }

    fn pad_row(&self, from: &[f32], to: &mut [f32]) {
        let (margin, step) = (self.margin[1], self.step[1]);
        if step == 1 {
            to[margin..margin + from.len()].copy_from_slice(from);
            return;
        }
        for (remainder, to) in to.chunks_exact_mut(self.padded[1] / step).enumerate() {
            let first = (remainder + step - margin % step) % step;
            let to = &mut to[(first + margin) / step..];
            for (to, from) in to.iter_mut().zip(from.iter().skip(first).step_by(step)) {
                *to = *from;
            }
        }
    }
}
