//! A size that is known, or a known multiple of the batch.

use std::fmt;

/// One dimension of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// A fixed size.
    Fixed(usize),
    /// This many times the batch.
    Batch(usize),
}

impl Dim {
    /// The size when it does not depend on the batch.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(n),
            Dim::Batch(_) => None,
        }
    }

    /// The size for a given batch.
    pub fn at(self, batch: usize) -> usize {
        match self {
            Dim::Fixed(n) => n,
            Dim::Batch(n) => n * batch,
        }
    }

    /// The product, when it is still of the form "number" or "number times batch".
    pub fn times(self, other: Dim) -> Option<Dim> {
        match (self, other) {
            (Dim::Fixed(a), Dim::Fixed(b)) => a.checked_mul(b).map(Dim::Fixed),
            (Dim::Fixed(a), Dim::Batch(b)) | (Dim::Batch(a), Dim::Fixed(b)) => {
                a.checked_mul(b).map(Dim::Batch)
            }
            (Dim::Batch(_), Dim::Batch(_)) => None,
        }
    }

    /// The quotient, when it is exact.
    pub fn over(self, other: Dim) -> Option<Dim> {
        let exact = |a: usize, b: usize| (b != 0 && a.is_multiple_of(b)).then(|| a / b);
        match (self, other) {
            (Dim::Fixed(a), Dim::Fixed(b)) | (Dim::Batch(a), Dim::Batch(b)) => {
                exact(a, b).map(Dim::Fixed)
            }
            (Dim::Batch(a), Dim::Fixed(b)) => exact(a, b).map(Dim::Batch),
            (Dim::Fixed(_), Dim::Batch(_)) => None,
        }
    }

    /// The product of several dimensions.
    pub fn product(dims: &[Dim]) -> Option<Dim> {
        dims.iter().try_fold(Dim::Fixed(1), |product, d| product.times(*d))
    }

    /// The size both broadcast to (numpy's rule).
    pub fn broadcast(self, other: Dim) -> Option<Dim> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Dim::Fixed(1), d) | (d, Dim::Fixed(1)) => Some(d),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Batch(1) => write!(f, "N"),
            Dim::Batch(n) => write!(f, "{n}N"),
        }
    }
}

/// `[N, 16, 7, 7]`.
pub fn display(dims: &[Dim]) -> String {
    format!("[{}]", dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_keeps_the_batch_symbolic() {
        let n = Dim::Batch(1);
        let flat = Dim::product(&[n, Dim::Fixed(3), Dim::Fixed(4)]).unwrap();
        assert_eq!(flat, Dim::Batch(12));
        assert_eq!(flat.over(n), Some(Dim::Fixed(12)));
        assert_eq!(flat.over(Dim::Fixed(6)), Some(Dim::Batch(2)));
        assert_eq!(flat.over(Dim::Fixed(5)), None);
        assert_eq!(n.times(n), None);
        assert_eq!(n.broadcast(Dim::Fixed(1)), Some(n));
        assert_eq!(n.broadcast(Dim::Fixed(2)), None);
        assert_eq!(flat.at(5), 60);
        assert_eq!(display(&[n, Dim::Fixed(3)]), "[N, 3]");
    }
}
