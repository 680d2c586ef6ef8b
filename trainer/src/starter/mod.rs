//! Starter graphs for people who have no model yet.
//!
//! | kind | for | input | example | weights | multiply-adds |
//! |---|---|---|---|---|---|
//! | `picture-cnn` | small pictures | channels × height × width | 1×28×28, 10 classes | 105,914 | 1.1 million |
//! | `picture-mobile` | pictures of 32 to 224 pixels and more | channels × height × width | 3×96×96, 10 classes | 216,266 | 23.6 million |
//! | `signal-cnn` | windows of vibration, current, sound, motion | channels × samples | 1×2048, 4 classes | 40,666 | 0.7 million |
//! | `table-mlp` | rows of a table | columns | 9, 3 classes | 9,749 | 0.01 million |
//! | `autoencoder` | anomaly scores where only the normal is known | any of the three | 1×2048 | 12,785 | 1.3 million |
//!
//! The input's shape is given without the batch. All kinds but the autoencoder end in one score a
//! class (`scores`, before any softmax) or in numbers to be estimated (`values`); an autoencoder
//! gives its input back (`reconstruction`). How each is built stands in its module.
//!
//! Weights are drawn after He et al. 2015 (normal, variance 2 / fan-in before a ReLU, 1 / fan-in
//! elsewhere); the same kind, input, head and seed give the same bytes.

mod autoencoder;
mod layers;
mod picture;
mod signal;
mod table;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::onnx::OnnxError;

/// A kind of starter graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A small convolutional network for pictures.
    PictureCnn,
    /// Inverted residuals with depthwise convolutions, for larger pictures.
    PictureMobile,
    /// A one-dimensional convolutional network for windows of signals.
    SignalCnn,
    /// A multilayer perceptron for rows of a table.
    TableMlp,
    /// Gives its input back through a narrow code; what it cannot give back is unusual.
    Autoencoder,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::PictureCnn, Self::PictureMobile, Self::SignalCnn, Self::TableMlp, Self::Autoencoder];

    /// Its name, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::PictureCnn => "picture-cnn",
            Self::PictureMobile => "picture-mobile",
            Self::SignalCnn => "signal-cnn",
            Self::TableMlp => "table-mlp",
            Self::Autoencoder => "autoencoder",
        }
    }

    /// What it is for, in a line.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::PictureCnn => {
                "small pictures (CxHxW, 8 to 512 pixels a side): two convolutions, two dense layers"
            }
            Self::PictureMobile => {
                "larger pictures (CxHxW, 32 to 1024 pixels a side): like MobileNetV2, small"
            }
            Self::SignalCnn => {
                "windows of vibration, current, sound or motion (channels x samples, from 64 samples)"
            }
            Self::TableMlp => "rows of a table (number of columns), which it standardises itself",
            Self::Autoencoder => {
                "anomaly scores for any of these shapes, learned from normal data alone"
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = StarterError;
    fn from_str(text: &str) -> Result<Self, StarterError> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| StarterError::Kind(text.to_owned()))
    }
}

/// What a starter's output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// One score for each of so many classes.
    Classes(usize),
    /// So many numbers.
    Values(usize),
    /// The input.
    Reconstruction,
}

/// Why a starter graph cannot be made.
#[derive(Debug, Error)]
pub enum StarterError {
    /// There is no such kind.
    #[error("cannot make starter graph '{0}': the kinds are {kinds}", kinds = Kind::ALL.map(Kind::name).join(", "))]
    Kind(String),
    /// The input does not suit the kind.
    #[error("cannot make starter graph {kind} for input {input:?}: it needs {wants}")]
    Input {
        /// The kind.
        kind: Kind,
        /// The input's shape.
        input: Vec<usize>,
        /// What would suit.
        wants: &'static str,
    },
    /// There is nothing to tell apart.
    #[error("cannot make a classifier of {0} classes: 2 to 65536 are needed")]
    Classes(usize),
    /// There is nothing to estimate.
    #[error("cannot make a graph of {0} outputs: 1 to 65536 are needed")]
    Values(usize),
    /// The kind ends in something else.
    #[error(
        "cannot make starter graph autoencoder with classes or outputs: its output is its input; leave them out"
    )]
    Reconstructs,
    /// Nothing says what the graph is to give.
    #[error(
        "cannot make starter graph {0} without a head: say how many classes it tells apart or how many outputs it estimates"
    )]
    Headless(Kind),
    /// The file cannot be written.
    #[error("cannot make starter graph")]
    Onnx(#[from] OnnxError),
}

/// The most classes or outputs.
const MOST_OUTPUTS: usize = 65_536;

/// The bytes of a starter graph for inputs of that shape (without the batch).
///
/// # Errors
/// [`StarterError`] when the input or the head does not suit the kind.
pub fn starter(
    kind: Kind,
    input: &[usize],
    head: Head,
    seed: u64,
) -> Result<Vec<u8>, StarterError> {
    match (kind, head) {
        (Kind::Autoencoder, Head::Reconstruction) => {}
        (Kind::Autoencoder, _) => return Err(StarterError::Reconstructs),
        (_, Head::Reconstruction) => return Err(StarterError::Headless(kind)),
        (_, Head::Classes(n)) if !(2..=MOST_OUTPUTS).contains(&n) => {
            return Err(StarterError::Classes(n));
        }
        (_, Head::Values(n)) if !(1..=MOST_OUTPUTS).contains(&n) => {
            return Err(StarterError::Values(n));
        }
        _ => {}
    }
    let made = match kind {
        Kind::PictureCnn => picture::cnn(input, head, seed),
        Kind::PictureMobile => picture::mobile(input, head, seed),
        Kind::SignalCnn => signal::cnn(input, head, seed),
        Kind::TableMlp => table::mlp(input, head, seed),
        Kind::Autoencoder => autoencoder::autoencoder(input, seed),
    };
    let refused = |wants| StarterError::Input { kind, input: input.to_vec(), wants };
    Ok(made.map_err(refused)?.finish()?)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::graph::{Graph, Sizes};
    use crate::onnx::Model;

    const EVERY: [(Kind, &[usize], Head); 13] = [
        (Kind::PictureCnn, &[1, 28, 28], Head::Classes(10)),
        (Kind::PictureCnn, &[3, 33, 41], Head::Values(2)),
        (Kind::PictureCnn, &[1, 8, 8], Head::Classes(2)),
        (Kind::PictureMobile, &[3, 96, 96], Head::Classes(10)),
        (Kind::PictureMobile, &[1, 32, 45], Head::Values(1)),
        (Kind::SignalCnn, &[1, 2048], Head::Classes(4)),
        (Kind::SignalCnn, &[6, 64], Head::Classes(2)),
        (Kind::SignalCnn, &[2, 333], Head::Values(3)),
        (Kind::TableMlp, &[9], Head::Classes(3)),
        (Kind::TableMlp, &[1], Head::Values(1)),
        (Kind::Autoencoder, &[9], Head::Reconstruction),
        (Kind::Autoencoder, &[1, 2048], Head::Reconstruction),
        (Kind::Autoencoder, &[3, 31, 46], Head::Reconstruction),
    ];

    fn load(
        kind: Kind,
        input: &[usize],
        head: Head,
        batch: usize,
    ) -> (Graph, Vec<crate::graph::Fact>) {
        let model = Model::parse(starter(kind, input, head, 1).unwrap()).unwrap();
        let inputs = Sizes::batch(batch).inputs(&model).unwrap();
        (Graph::load(model, &inputs, &Device::flex()).unwrap(), inputs)
    }

    #[test]
    fn every_kind_loads_and_gives_what_its_head_says() {
        for (kind, input, head) in EVERY {
            let (graph, inputs) = load(kind, input, head, 3);
            let plan = graph.plan(&inputs, &graph.outputs()).unwrap();
            let want = match head {
                Head::Classes(n) | Head::Values(n) => vec![3, n],
                Head::Reconstruction => [&[3], input].concat(),
            };
            assert_eq!(plan.outputs[0].fact.dims, want, "{kind} {input:?}");
            let weights =
                graph.model.weights().filter(|w| w.tensor.shape.iter().product::<usize>() > 1);
            let (trained, held) = (graph.parameters.list.len(), weights.count());
            assert!(trained >= held, "{kind}: {held} weights, {trained} change");
        }
    }

    #[test]
    fn a_seed_names_a_file() {
        for (kind, input, head) in EVERY {
            let make = |seed| starter(kind, input, head, seed).unwrap();
            assert_eq!(make(1), make(1), "{kind}");
            assert_ne!(make(1), make(2), "{kind}");
        }
    }

    #[test]
    fn weights_and_multiply_adds_are_those_of_the_table() {
        let table = [
            (Kind::PictureCnn, &[1, 28, 28][..], Head::Classes(10), 105_914, 1_117_056),
            (Kind::PictureMobile, &[3, 96, 96], Head::Classes(10), 216_266, 23_596_160),
            (Kind::SignalCnn, &[1, 2048], Head::Classes(4), 40_666, 727_696),
            (Kind::TableMlp, &[9], Head::Classes(3), 9_749, 9_536),
            (Kind::Autoencoder, &[1, 2048], Head::Reconstruction, 12_785, 1_310_720),
        ];
        let found = table.map(|(kind, input, head, ..)| {
            let (graph, _) = load(kind, input, head, 1);
            let trained = graph.parameters.list.iter().filter(|p| p.role.trains());
            let weights = trained.map(|p| p.shape.iter().product::<usize>()).sum();
            (kind, input, head, weights, graph.cost.multiply_adds)
        });
        assert_eq!(found, table);
    }

    #[test]
    fn what_a_pass_costs_is_known_before() {
        let (graph, _) = load(Kind::PictureCnn, &[1, 28, 28], Head::Classes(10), 2);
        let cost = graph.cost;
        let convolutions = 28 * 28 * 16 * 9 + 14 * 14 * 32 * 16 * 9;
        assert_eq!(cost.multiply_adds, 2 * (convolutions + 1568 * 64 + 64 * 10));
        let weights = 16 * 9 + 32 * 16 * 9 + 1568 * 64 + 64 + 64 * 10 + 10;
        assert_eq!(cost.parameter_bytes, 4 * (weights + 4 * (16 + 32)));
        assert!(cost.value_bytes > 4 * 2 * 3 * 28 * 28 * 16, "three values of the first block");
    }

    #[test]
    fn what_does_not_suit_is_refused_with_what_would() {
        let refused: [(Kind, &[&[usize]]); 5] = [
            (Kind::PictureCnn, &[&[28, 28], &[1, 7, 28], &[0, 28, 28], &[1, 28, 1000]]),
            (Kind::PictureMobile, &[&[3, 31, 64], &[3, 64], &[17, 64, 64], &[3, 64, 2000]]),
            (Kind::SignalCnn, &[&[1, 63], &[0, 64], &[65, 64], &[1, 65_537], &[64]]),
            (Kind::TableMlp, &[&[0], &[4097], &[1, 9], &[]]),
            (Kind::Autoencoder, &[&[1], &[1, 63], &[1, 15, 16], &[1, 1, 1, 1], &[]]),
        ];
        for (kind, inputs) in refused {
            let head =
                if kind == Kind::Autoencoder { Head::Reconstruction } else { Head::Classes(2) };
            for input in inputs {
                let error = starter(kind, input, head, 0).unwrap_err();
                assert!(matches!(error, StarterError::Input { .. }), "{kind} {input:?}: {error}");
                assert!(error.to_string().contains(kind.name()), "{error}");
            }
        }
    }

    #[test]
    fn a_head_that_does_not_suit_is_refused() {
        let make = |kind, head| starter(kind, &[64], head, 0).unwrap_err();
        assert!(matches!(make(Kind::TableMlp, Head::Classes(1)), StarterError::Classes(1)));
        assert!(matches!(make(Kind::TableMlp, Head::Values(0)), StarterError::Values(0)));
        assert!(matches!(
            make(Kind::TableMlp, Head::Reconstruction),
            StarterError::Headless(Kind::TableMlp)
        ));
        assert!(matches!(make(Kind::Autoencoder, Head::Values(3)), StarterError::Reconstructs));
    }
}
