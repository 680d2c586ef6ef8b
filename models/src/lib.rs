//! What training and serving must agree on: the bundle, what happens to a frame before the model
//! and to its output after it, and the ONNX session between.
//!
//! ```text
//!  payload ─ picture ─► frame ─ preprocess ─► tensor ─ session ─► logits ─ postprocess ─► answer
//!                         ▲________________ golden cases ________________________________│
//! ```
//!
//! The device, the evaluation and the training run this very code; the golden cases of a bundle
//! prove, on each device, that they do, and its reference holds what the answers looked like where
//! it was made. A model is input from outside: [`graph`] checks it before the runtime sees it. Nothing here knows of devices or fleets.

pub mod bundle;
pub mod content;
pub mod figures;
pub mod folder;
pub mod golden;
pub mod graph;
pub mod idx;
pub mod picture;
pub mod postprocess;
pub mod preprocess;
pub mod reference;
pub mod session;
pub mod statistics;
