//! The reference: what a model made of the pictures it was judged by, as a sketch.
//!
//! `reference.json` is a [`Sketch`] as JSON, made where the bundle was made, by the file that ships
//! and by the code that counts on devices ([`crate::statistics`]). A device and the hub compare what
//! they see with it. Invariants of a [`Reference`]: every feature counts the same frames, at least
//! [`FEWEST_FRAMES`] of them, for a reference that nothing could be compared with is none.

use fleetloop_protocol::drift::FEWEST_FRAMES;
use fleetloop_protocol::sketch::{Sketch, total};

/// The largest file, in bytes: 1024 classes and 84 bins of 20 digits, with room to spare.
pub const REFERENCE_BYTES: usize = 32 << 10;

/// The most frames; more would say no more.
const MOST_FRAMES: u64 = 1 << 32;

/// A sketch to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(Sketch);

/// Why a reference cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use a reference: {reason}")]
pub struct ReferenceError {
    reason: String,
}

impl ReferenceError {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl Reference {
    /// The reference of `sketch`.
    ///
    /// # Errors
    /// [`ReferenceError`]: its features count different frames, too few or too many.
    pub fn new(sketch: Sketch) -> Result<Self, ReferenceError> {
        let frames = sketch.frames();
        if !(FEWEST_FRAMES..=MOST_FRAMES).contains(&frames) {
            let reason = format!("{frames} frames, want {FEWEST_FRAMES} to {MOST_FRAMES}");
            return Err(ReferenceError::because(reason));
        }
        let classes = (!sketch.classes.is_empty()).then(|| total(&sketch.classes));
        let counted = [Some(sketch.brightness.total()), Some(sketch.contrast.total()), classes];
        match counted.into_iter().flatten().find(|found| *found != frames) {
            Some(found) => Err(ReferenceError::because(format!(
                "a feature counts {found} frames, another {frames}"
            ))),
            None => Ok(Self(sketch)),
        }
    }

    /// The reference in `bytes`.
    ///
    /// # Errors
    /// [`ReferenceError`]: over the limit, not of this format, or as [`Self::new`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReferenceError> {
        if bytes.len() > REFERENCE_BYTES {
            let reason = format!("{} bytes, the limit is {REFERENCE_BYTES}", bytes.len());
            return Err(ReferenceError::because(reason));
        }
        Self::new(
            serde_json::from_slice(bytes)
                .map_err(|error| ReferenceError::because(error.to_string()))?,
        )
    }

    /// The reference as JSON.
    ///
    /// # Errors
    /// [`ReferenceError`] when it has more classes than a reader takes.
    pub fn to_json(&self) -> Result<Vec<u8>, ReferenceError> {
        let bytes = serde_json::to_vec(&self.0)
            .map_err(|error| ReferenceError::because(error.to_string()))?;
        if bytes.len() > REFERENCE_BYTES {
            return Err(ReferenceError::because(format!("{} classes", self.0.classes.len())));
        }
        Ok(bytes)
    }

    /// The same, if a model of so many labels can have made it.
    ///
    /// # Errors
    /// [`ReferenceError`] when it counts another number of classes.
    pub fn of_labels(self, labels: usize) -> Result<Self, ReferenceError> {
        match self.0.classes.len() {
            0 => Ok(self),
            classes if classes == labels => Ok(self),
            classes => Err(ReferenceError::because(format!("{classes} classes, {labels} labels"))),
        }
    }

    /// What is counted.
    pub fn sketch(&self) -> &Sketch {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::sketch::Observation;

    use super::*;

    fn sketch(frames: u64) -> Sketch {
        let mut sketch = Sketch::default();
        for frame in 0..frames {
            sketch.add(&Observation {
                classes: 3,
                class: frame as usize % 3,
                confidence: 0.9,
                brightness: 0.4,
                contrast: 0.2,
            });
        }
        sketch
    }

    #[test]
    fn a_reference_survives_its_own_json() {
        let reference = Reference::new(sketch(FEWEST_FRAMES)).unwrap();
        assert_eq!(Reference::parse(&reference.to_json().unwrap()).unwrap(), reference);
        assert_eq!(reference.clone().of_labels(3), Ok(reference.clone()));
        assert!(reference.of_labels(4).is_err());
    }

    #[test]
    fn the_file_of_the_most_classes_is_within_its_limit() {
        let mut most = sketch(1);
        most.classes = vec![(1 << 32) / 1024; 1024];
        for histogram in [&mut most.brightness, &mut most.contrast] {
            *histogram = vec![1u64 << 27; 32].try_into().unwrap();
        }
        let mut bins = vec![(1 << 32) / 32; 20];
        bins[0] += (1 << 32) / 32 * 12;
        most.confidence = bins.try_into().unwrap();
        Reference::new(most).unwrap().to_json().unwrap();
    }

    #[test]
    fn what_cannot_be_compared_with_is_no_reference() {
        assert!(Reference::new(sketch(FEWEST_FRAMES - 1)).is_err());
        let mut torn = sketch(FEWEST_FRAMES);
        torn.classes[0] += 1;
        assert!(Reference::new(torn).unwrap_err().to_string().contains("a feature"));
        let text = String::from_utf8(serde_json::to_vec(&sketch(FEWEST_FRAMES)).unwrap()).unwrap();
        for bad in [
            text.replacen("[", "[0,", 2),
            text.replacen("\"classes\"", "\"surprise\"", 1),
            text.replacen("167", "-167", 1),
            format!("{text}{}", " ".repeat(REFERENCE_BYTES)),
            String::new(),
        ] {
            assert!(Reference::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
