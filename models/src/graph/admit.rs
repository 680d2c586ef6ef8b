//! What a sound file may still not do, because it would answer otherwise than it was judged, or not
//! at all: asked of its [`Outline`] after the bytes were checked, and before any runtime loads it.
//!
//! | refused | why |
//! |---|---|
//! | no operator set of ONNX's own, one below [`OLDEST_SET`] | ONNX Runtime does not run it |
//! | sparse initializers | training reads none |
//! | two nodes of one name | ONNX Runtime does not load them |
//! | `BatchNormalization` or `Dropout` in training mode, statistics for every place (`spatial` = 0) | an answer would hang on the samples beside it, or on chance |
//! | several inputs, one that holds no floats, a size of 0 | a sample is one input of floats |
//! | no output that holds floats | there are no scores |

use std::collections::HashSet;

use super::GraphError;
use super::outline::{Node, Outline};

/// The oldest operator set that ONNX Runtime runs.
pub const OLDEST_SET: i64 = 7;

/// Refuses what the module's table lists.
pub(super) fn admit(outline: &Outline) -> Result<(), GraphError> {
    let set = outline.opset.ok_or(GraphError::NoOperatorSet)?;
    if set < OLDEST_SET {
        return Err(GraphError::OldOperatorSet { set });
    }
    if let Some(tensor) = outline.sparse.first() {
        return Err(GraphError::Sparse { tensor: shown(tensor) });
    }
    let mut names = HashSet::new();
    let named = outline.nodes.iter().filter(|node| !node.name.is_empty());
    if let Some(node) = named.into_iter().find(|node| !names.insert(&node.name)) {
        return Err(GraphError::NodeTwice { node: shown(&node.name) });
    }
    for node in outline.nodes.iter().chain(&outline.inner).filter(|node| node.is_onnx()) {
        if let Some(why) = unreliable(outline, set, node) {
            let (operator, node) = (node.op.clone(), shown(node.called()));
            return Err(GraphError::Unreliable { operator, node, why });
        }
    }
    ends(outline)
}

/// Why a node does in use what belongs to training, or what training does not do.
fn unreliable(outline: &Outline, set: i64, node: &Node) -> Option<&'static str> {
    match node.op.as_str() {
        "BatchNormalization" => {
            let used = node.outputs.iter().filter(|output| !output.is_empty()).count();
            if node.int("training_mode").is_some_and(|mode| mode != 0) {
                Some(
                    "it has training_mode = 1, so an answer hangs on the samples beside it; export the \
                     model for inference (model.eval())",
                )
            } else if set < 14 && used > 1 {
                Some(
                    "it gives out the statistics of the batch, as in training; export the model for \
                     inference (model.eval())",
                )
            } else if node.int("spatial") == Some(0) {
                Some(
                    "it has statistics for every place (spatial = 0), which newer operator sets do not \
                     know; export it with statistics by channel",
                )
            } else {
                None
            }
        }
        "Dropout" => {
            let number = |place: usize| {
                let name = node.inputs.get(place).filter(|name| !name.is_empty())?;
                Some(outline.constants.get(name).and_then(|c| c.values.as_ref()?.first().copied()))
            };
            let never = number(1).flatten() == Some(0.0);
            match number(2) {
                None | Some(Some(0.0)) => None,
                Some(_) if never => None,
                Some(Some(_)) => Some(
                    "its training_mode is true, so it drops values at random; export the model for \
                     inference (model.eval())",
                ),
                Some(None) => Some(
                    "its training_mode is computed; export the model for inference (model.eval())",
                ),
            }
        }
        _ => None,
    }
}

/// Checks inputs and outputs.
fn ends(outline: &Outline) -> Result<(), GraphError> {
    let list = |all: &[super::outline::Declared]| {
        let words: Vec<_> = all.iter().take(8).map(ToString::to_string).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    };
    let [input] = outline.inputs.as_slice() else {
        return Err(GraphError::Inputs { inputs: list(&outline.inputs) });
    };
    if !input.is_float() {
        return Err(GraphError::InputType { input: input.to_string(), element: input.type_word() });
    }
    if input.dims.iter().flatten().any(|size| *size == Some(0)) {
        return Err(GraphError::InputSize { input: input.to_string() });
    }
    if outline.outputs.iter().any(super::outline::Declared::is_float) {
        Ok(())
    } else {
        Err(GraphError::Outputs { outputs: list(&outline.outputs) })
    }
}

fn shown(name: &str) -> String {
    super::check::shown(name.as_bytes())
}
