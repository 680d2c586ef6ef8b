//! Golden cases: payloads with the output they gave where the model was made.
//!
//! `golden.json` is [`GoldenCases`] as JSON. A device runs the cases through its own decoder,
//! preprocessing and runtime before a bundle may answer; one that cannot reproduce them within the
//! tolerance refuses the bundle.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetloop_protocol::sample::MediaType;
use serde::{Deserialize, Serialize};

use crate::picture::{Frame, PictureError};
use crate::session::{Session, SessionError};

/// The largest file of golden cases, in bytes.
pub const GOLDEN_BYTES: usize = 16 << 20;
/// The most cases.
pub const GOLDEN_CASES: usize = 256;
/// The largest tolerance a bundle may ask for.
const TOLERANCE: f32 = 0.1;

/// Cases and how exactly they must be met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenCases {
    /// The largest absolute difference of an output's value.
    tolerance: f32,
    cases: Vec<GoldenCase>,
}

/// One payload and what the graph gave for it, as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenCase {
    media_type: MediaType,
    /// Base64.
    payload: String,
    output: Vec<f32>,
}

/// How close a session came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GoldenReport {
    /// How many cases were run.
    pub cases: usize,
    /// The largest difference of a value.
    pub largest_difference: f32,
    /// The largest that was allowed.
    pub tolerance: f32,
}

/// Why golden cases cannot be read, recorded or met.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// Not this format, or over a limit.
    #[error("cannot read golden cases: {reason}")]
    Format {
        /// What is wrong.
        reason: String,
    },
    /// A case's payload is no picture.
    #[error("cannot read the payload of golden case {case}")]
    Payload {
        /// Which, from 0.
        case: usize,
        /// Why.
        #[source]
        source: PictureError,
    },
    /// The model cannot run.
    #[error("cannot run golden case {case}")]
    Run {
        /// Which, from 0.
        case: usize,
        /// Why.
        #[source]
        source: SessionError,
    },
    /// The model gives something else here than where it was made.
    #[error(
        "golden case {case} is off by {difference} (allowed {tolerance}); rebuild the bundle, or \
         run 'edge-agent check' to see whether this device's runtime is the cause"
    )]
    Missed {
        /// Which, from 0.
        case: usize,
        /// The largest difference of a value; infinite when the model gave no number.
        difference: f32,
        /// The largest that was allowed.
        tolerance: f32,
    },
}

impl GoldenCases {
    /// Records what `session` makes of `payloads`.
    ///
    /// # Errors
    /// [`GoldenError`] when a payload is no picture or the model cannot run.
    pub fn record(
        session: &mut Session,
        payloads: &[(MediaType, Vec<u8>)],
        tolerance: f32,
    ) -> Result<Self, GoldenError> {
        let mut cases = Vec::with_capacity(payloads.len());
        for (case, (media_type, payload)) in payloads.iter().enumerate() {
            let output = output(session, case, *media_type, payload)?;
            cases.push(GoldenCase {
                media_type: *media_type,
                payload: STANDARD.encode(payload),
                output,
            });
        }
        Self { tolerance, cases }.validated()
    }

    /// The cases in `bytes`.
    ///
    /// # Errors
    /// [`GoldenError::Format`] when they are not this format or over a limit.
    pub fn parse(bytes: &[u8]) -> Result<Self, GoldenError> {
        if bytes.len() > GOLDEN_BYTES {
            return Err(GoldenError::Format { reason: format!("{} bytes", bytes.len()) });
        }
        serde_json::from_slice::<Self>(bytes)
            .map_err(|error| GoldenError::Format { reason: error.to_string() })?
            .validated()
    }

    /// The cases as JSON.
    ///
    /// # Errors
    /// [`GoldenError::Format`] when a value is not a number.
    pub fn to_json(&self) -> Result<Vec<u8>, GoldenError> {
        serde_json::to_vec(self).map_err(|error| GoldenError::Format { reason: error.to_string() })
    }

    /// How many cases there are.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Never: a valid set has a case.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// What the graph gave, case by case.
    pub fn outputs(&self) -> Vec<Vec<f32>> {
        self.cases.iter().map(|case| case.output.clone()).collect()
    }

    /// The payloads of the cases, decoded.
    ///
    /// # Errors
    /// [`GoldenError::Payload`] when one is no picture.
    pub fn frames(&self) -> Result<Vec<Frame>, GoldenError> {
        let frame = |(case, golden): (usize, &GoldenCase)| {
            Frame::decode(golden.media_type, &golden.bytes(case)?)
                .map_err(|source| GoldenError::Payload { case, source })
        };
        self.cases.iter().enumerate().map(frame).collect()
    }

    /// Runs every case through `session`.
    ///
    /// # Errors
    /// [`GoldenError`] names the first case that cannot be run or is missed.
    pub fn check(&self, session: &mut Session) -> Result<GoldenReport, GoldenError> {
        let tolerance = self.tolerance;
        let mut largest_difference = 0f32;
        for (case, golden) in self.cases.iter().enumerate() {
            let found = output(session, case, golden.media_type, &golden.bytes(case)?)?;
            let difference = difference(&found, &golden.output);
            if difference > tolerance {
                return Err(GoldenError::Missed { case, difference, tolerance });
            }
            largest_difference = largest_difference.max(difference);
        }
        Ok(GoldenReport { cases: self.cases.len(), largest_difference, tolerance })
    }

    fn validated(self) -> Result<Self, GoldenError> {
        let refuse = |reason: String| Err(GoldenError::Format { reason });
        if !(1..=GOLDEN_CASES).contains(&self.cases.len()) {
            return refuse(format!("{} cases, want 1 to {GOLDEN_CASES}", self.cases.len()));
        }
        if !(self.tolerance > 0.0 && self.tolerance <= TOLERANCE) {
            return refuse(format!("tolerance {} is not in (0, {TOLERANCE}]", self.tolerance));
        }
        if self.cases.iter().any(|case| !case.output.iter().all(|x| x.is_finite())) {
            return refuse("a value of an output is not a number".to_owned());
        }
        Ok(self)
    }
}

impl GoldenCase {
    fn bytes(&self, case: usize) -> Result<Vec<u8>, GoldenError> {
        STANDARD.decode(&self.payload).map_err(|error| GoldenError::Format {
            reason: format!("payload of case {case} is not base64 ({error})"),
        })
    }
}

fn output(
    session: &mut Session,
    case: usize,
    media_type: MediaType,
    payload: &[u8],
) -> Result<Vec<f32>, GoldenError> {
    let frame = Frame::decode(media_type, payload)
        .map_err(|source| GoldenError::Payload { case, source })?;
    session.outputs(&frame).map_err(|source| GoldenError::Run { case, source })
}

/// The largest absolute difference; infinite when lengths differ or a value is not a number.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() {
        return f32::INFINITY;
    }
    let gap = |(a, b): (&f32, &f32)| {
        if a.is_finite() { (a - b).abs() } else { f32::INFINITY }
    };
    found.iter().zip(expected).map(gap).fold(0.0, f32::max)
}
