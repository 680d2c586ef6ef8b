//! A small fleet as its operator drives it: through the command lines, as separate processes.

mod agent;
mod hub;
pub mod models;
mod plant;
pub mod rollout;
mod status;
mod worker;

pub use agent::{Agent, AgentConfig, Answered, Capacity, Selection, Stopped};
pub use hub::{Hub, HubPlace};
pub use plant::{Plant, labels, test_bundles};
pub use status::{AgentStatus, Frames, Waiting};
pub use worker::Worker;

use std::path::{Path, PathBuf};

/// What every process of the fleet needs and the source tree does not hold; `cargo xtask setup`
/// fetches it.
#[derive(Debug, Clone)]
pub struct Assets {
    /// ONNX Runtime's library.
    pub onnxruntime: PathBuf,
    /// The folder of Fashion-MNIST's four IDX files.
    pub fashion_mnist: PathBuf,
}

impl Assets {
    /// Where setup puts them, in this checkout.
    pub fn of_this_checkout() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cache = here.parent().unwrap_or(here).join(".fleetloop");
        Self {
            onnxruntime: cache.join("onnxruntime/libonnxruntime.so.1.31.1"),
            fashion_mnist: cache.join("fashion-mnist"),
        }
    }
}
