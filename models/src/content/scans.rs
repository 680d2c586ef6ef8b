//! Whether a JPEG's scans hold every block of the picture: the codes are read, no pixel is made.
//!
//! A decoder fills what is missing with grey and says nothing, and an end marker proves little: a
//! camera that lost half of the data writes one too. Here each scan has to hold as many blocks as the
//! header says, before its next marker.
//!
//! Cost: each code is read once; one bit a coefficient is kept where a picture is progressive.
//!
//! Format: ITU-T T.81, annexes B, F.2.2 (sequential) and G.2 (progressive).

use super::{ContentError, array};
use crate::picture::FRAME_PIXELS;

const EXPECTED: &str = "image/jpeg";
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DHT: u8 = 0xc4;
const DRI: u8 = 0xdd;

/// Reads every scan of a file that [`super::jpeg::walk`] took and a decoder decoded: the decoder bounds
/// how many scans there are.
pub(super) fn whole(bytes: &[u8]) -> Result<(), ContentError> {
    read(bytes).ok_or(ContentError::Cut { expected: EXPECTED })
}

/// None when a scan ends before its last block, or cannot be read.
fn read(bytes: &[u8]) -> Option<()> {
    let mut state = State::default();
    let mut at = 2;
    loop {
        let (marker, next) = super::jpeg::marker(bytes, at)?;
        at = next;
        if marker == EOI {
            return Some(());
        }
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            continue;
        }
        let len = usize::from(u16::from_be_bytes(array(bytes, at)?));
        let part = bytes.get(at + 2..at.checked_add(len)?)?;
        at += len;
        match marker {
            0xc0..=0xc2 => state.frame(part, marker == 0xc2)?,
            DHT => state.tables(part)?,
            DRI => state.restart = u16::from_be_bytes(array(part, 0)?).into(),
            SOS => at = state.scan(part, bytes, at)?,
            _ => {}
        }
    }
}

/// One component of the picture.
#[derive(Default)]
struct Component {
    id: u8,
    /// Blocks of a whole unit, across and down.
    factors: [usize; 2],
    /// Blocks of a row with those that only fill a unit.
    stride: usize,
    /// By block, the coefficients that are not zero; empty where that is not asked.
    nonzero: Vec<u64>,
}

#[derive(Default)]
struct State {
    size: [usize; 2],
    progressive: bool,
    components: Vec<Component>,
    largest: [usize; 2],
    /// Tables for DC and AC, four of each.
    codes: [[Codes; 4]; 2],
    /// Units between two restart markers; 0: none.
    restart: usize,
}

/// A Huffman table (figure F.15).
#[derive(Default)]
struct Codes {
    /// By length 1 to 16: first code, one past the last code (in that length), place of the first value.
    lengths: [(u32, u32, usize); 16],
    values: Vec<u8>,
}

impl State {
    fn frame(&mut self, part: &[u8], progressive: bool) -> Option<()> {
        let [_, h1, h0, w1, w0, count] = array(part, 0)?;
        self.size = [[w1, w0], [h1, h0]].map(|pair| usize::from(u16::from_be_bytes(pair)));
        if self.size[0] as u64 * self.size[1] as u64 > FRAME_PIXELS {
            return None;
        }
        self.progressive = progressive;
        for place in 0..usize::from(count) {
            let [id, factors, _] = array(part, 6 + 3 * place)?;
            let factors = [usize::from(factors >> 4), usize::from(factors & 15)];
            if !factors.iter().all(|factor| (1..=4).contains(factor)) {
                return None;
            }
            self.components.push(Component { id, factors, ..Component::default() });
        }
        for side in 0..2 {
            self.largest[side] = self.components.iter().map(|c| c.factors[side]).max()?;
        }
        let units = [self.units(0), self.units(1)];
        for component in &mut self.components {
            component.stride = units[0] * component.factors[0];
            if progressive {
                component.nonzero = vec![0; component.stride * units[1] * component.factors[1]];
            }
        }
        Some(())
    }

    /// Whole units along a side.
    fn units(&self, side: usize) -> usize {
        self.size[side].div_ceil(8 * self.largest[side])
    }

    fn tables(&mut self, mut part: &[u8]) -> Option<()> {
        while let Some(which) = part.first() {
            let counts: [u8; 16] = array(part, 1)?;
            let total = counts.iter().map(|count| usize::from(*count)).sum::<usize>();
            let mut codes =
                Codes { values: part.get(17..17 + total)?.to_vec(), ..Codes::default() };
            let (mut code, mut place) = (0u32, 0);
            for (length, count) in codes.lengths.iter_mut().zip(counts) {
                *length = (code, code + u32::from(count), place);
                code = (code + u32::from(count)) << 1;
                place += usize::from(count);
            }
            *self.codes.get_mut(usize::from(which >> 4))?.get_mut(usize::from(which & 15))? = codes;
            part = &part[17 + total..];
        }
        Some(())
    }

    /// Reads a scan that begins at `at` and says where it ends.
    fn scan(&mut self, part: &[u8], bytes: &[u8], at: usize) -> Option<usize> {
        let count = usize::from(*part.first()?);
        let mut chosen = Vec::new();
        for place in 0..count {
            let [id, tables] = array(part, 1 + 2 * place)?;
            let component = self.components.iter().position(|c| c.id == id)?;
            chosen.push((component, usize::from(tables >> 4), usize::from(tables & 15)));
        }
        let [from, to, bits] = array(part, 1 + 2 * count)?;
        let band = Band { from, to: to.min(63), first: bits >> 4 == 0 };
        // A single component stands block by block, without those that only fill a unit.
        let alone = match chosen[..] {
            [] => return None,
            [(component, ..)] => Some(self.components[component].factors),
            _ => None,
        };
        let units = match alone {
            Some(factors) => [0, 1].map(|side| {
                (self.size[side] * factors[side]).div_ceil(self.largest[side]).div_ceil(8)
            }),
            None => [self.units(0), self.units(1)],
        };
        let mut reader = Reader { bytes, at, buffer: 0, held: 0 };
        let mut skip = 0;
        for unit in 0..units[0] * units[1] {
            if self.restart > 0 && unit > 0 && unit % self.restart == 0 {
                reader.restart()?;
                skip = 0;
            }
            let (column, row) = (unit % units[0], unit / units[0]);
            for (component, dc, ac) in &chosen {
                let codes = [self.codes[0].get(*dc)?, self.codes[1].get(*ac)?];
                let component = &mut self.components[*component];
                let [across, down] = if alone.is_some() { [1, 1] } else { component.factors };
                for block in 0..across * down {
                    let x = column * across + block % across;
                    let y = row * down + block / across;
                    let mut none = 0;
                    let nonzero = component.nonzero.get_mut(y * component.stride + x);
                    let nonzero = nonzero.unwrap_or(&mut none);
                    match (self.progressive, band.from, band.first) {
                        (false, ..) => reader.sequential(codes)?,
                        (true, 0, true) => reader.difference(codes[0])?,
                        (true, 0, false) => reader.bits(1).map(drop)?,
                        (true, _, true) => reader.spectral(codes[1], band, nonzero, &mut skip)?,
                        (true, _, false) => reader.refine(codes[1], band, nonzero, &mut skip)?,
                    }
                }
            }
        }
        Some(reader.at)
    }
}

/// The coefficients of a scan, and whether it is the first to tell of them.
#[derive(Clone, Copy)]
struct Band {
    from: u8,
    to: u8,
    first: bool,
}

/// Bits of a scan; none behind its end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    buffer: u64,
    held: u32,
}

impl Reader<'_> {
    /// Takes what there is up to the next marker.
    fn fill(&mut self) {
        while self.held <= 48 {
            let (byte, next) = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => (0xff, self.at + 2),
                (Some(0xff) | None, _) => return,
                (Some(byte), _) => (*byte, self.at + 1),
            };
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.held += 8;
            self.at = next;
        }
    }

    fn bits(&mut self, count: u8) -> Option<u32> {
        let count = u32::from(count);
        if self.held < count {
            self.fill();
        }
        self.held = self.held.checked_sub(count)?;
        Some((self.buffer >> self.held) as u32 & ((1 << count) - 1))
    }

    fn code(&mut self, codes: &Codes) -> Option<u8> {
        if self.held < 16 {
            self.fill();
        }
        for (length, (first, end, place)) in (1u32..).zip(&codes.lengths) {
            let left = self.held.checked_sub(length)?;
            let code = (self.buffer >> left) as u32 & ((1 << length) - 1);
            if code < *end {
                self.held = left;
                return codes.values.get(place + code.checked_sub(*first)? as usize).copied();
            }
        }
        None
    }

    /// Goes on behind the restart marker that has to be here.
    fn restart(&mut self) -> Option<()> {
        (self.buffer, self.held) = (0, 0);
        let (marker, next) = super::jpeg::marker(self.bytes, self.at)?;
        self.at = next;
        (0xd0..=0xd7).contains(&marker).then_some(())
    }

    /// A block's DC difference.
    fn difference(&mut self, codes: &Codes) -> Option<()> {
        let size = self.code(codes)?.min(16);
        self.bits(size).map(drop)
    }

    fn sequential(&mut self, [dc, ac]: [&Codes; 2]) -> Option<()> {
        self.difference(dc)?;
        let mut at = 1;
        while at < 64 {
            let code = self.code(ac)?;
            match (code >> 4, code & 15) {
                (15, 0) => at += 16,
                (_, 0) => break,
                (run, size) => {
                    self.bits(size)?;
                    at += run + 1;
                }
            }
        }
        Some(())
    }

    /// Figure G.3: a band of coefficients for the first time; `skip` counts blocks without any.
    fn spectral(
        &mut self,
        ac: &Codes,
        band: Band,
        nonzero: &mut u64,
        skip: &mut u32,
    ) -> Option<()> {
        if *skip > 0 {
            *skip -= 1;
            return Some(());
        }
        let mut at = band.from;
        while at <= band.to {
            let code = self.code(ac)?;
            match (code >> 4, code & 15) {
                (15, 0) => at += 16,
                (run, 0) => {
                    *skip = (1 << run) - 1 + self.bits(run)?;
                    break;
                }
                (run, size) => {
                    self.bits(size)?;
                    at += run;
                    set(nonzero, at);
                    at += 1;
                }
            }
        }
        Some(())
    }

    /// Figure G.7: one more bit of what is not zero, and what becomes so.
    fn refine(&mut self, ac: &Codes, band: Band, nonzero: &mut u64, skip: &mut u32) -> Option<()> {
        let mut at = band.from;
        if *skip == 0 {
            while at <= band.to {
                let code = self.code(ac)?;
                let (mut run, size) = (code >> 4, code & 15);
                if size > 0 {
                    self.bits(1)?;
                } else if run < 15 {
                    *skip = (1 << run) + self.bits(run)?;
                    break;
                }
                while at <= band.to {
                    if is_set(*nonzero, at) {
                        self.bits(1)?;
                    } else if run == 0 {
                        break;
                    } else {
                        run -= 1;
                    }
                    at += 1;
                }
                if size > 0 {
                    set(nonzero, at);
                }
                at += 1;
            }
        }
        if *skip > 0 {
            while at <= band.to {
                if is_set(*nonzero, at) {
                    self.bits(1)?;
                }
                at += 1;
            }
            *skip -= 1;
        }
        Some(())
    }
}

fn set(nonzero: &mut u64, at: u8) {
    if at < 64 {
        *nonzero |= 1 << at;
    }
}

fn is_set(nonzero: u64, at: u8) -> bool {
    at < 64 && nonzero & (1 << at) != 0
}
