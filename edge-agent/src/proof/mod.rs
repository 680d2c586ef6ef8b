//! A new model is loaded and tried in a child process; its end is the verdict.
//!
//! What a graph does shows only when it runs: a loop without an end, a value as large as the memory, a
//! fault of the runtime. So the agent starts itself once more (`edge-agent prove`), hands over the
//! bundle's folder and a few recent frames, and waits. The child
//! 1. gives up what it does not need ([`confine`]): limits of processor time, memory and file size, no
//!    core dump, no way to another process or to the network, and, where the kernel has Landlock, no
//!    file but the bundle, ONNX Runtime's library and what that reads of the system;
//! 2. checks the bundle again, has the runtime optimise its graph for this processor, loads what came
//!    of it, reproduces the golden cases and answers the frames;
//! 3. says on standard output which bytes those were, and ends.
//!
//! Any other end refuses the bundle: a reason in words, an exit code, a signal, the time. The agent then
//! loads exactly the bytes that were named, by their digest ([`Proof`]), and keeps them beside the bundle
//! with what they were proven for (`infer::optimised`): a later start needs no child.
//!
//! The child has the last priority, like all work beside frames, and dies with the agent. It is the one
//! the system ends first when memory is short. While it runs, its memory comes on top of the agent's.
//!
//! What is left: without Landlock (Linux before 5.13) the child may read what the agent's user may;
//! UDP is closed by the filter of system calls, which exists on x86-64 and aarch64 only.

mod child;
mod confine;
mod parent;

use std::path::PathBuf;
use std::time::Duration;

use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::session::Optimised;
use fleetloop_protocol::{BundleDigest, Digest};
use serde::{Deserialize, Serialize};

use crate::config::Config;

pub use child::main;
pub(crate) use parent::Task;
pub use parent::{Cancel, Failure, Prover};

/// The hidden subcommand that is the child.
pub const COMMAND: &str = "prove";

/// How many recent frames a new model answers in the child.
pub const FRAMES: usize = 3;

/// How long the agent waits for them.
pub const FRAMES_WITHIN: Duration = Duration::from_secs(2);

/// The largest request, frames included, in bytes: three pictures of 16,384 × 4,096 in colour.
const REQUEST_BYTES: u64 = 600 << 20;

/// The limits of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds in all.
    pub wall_s: u32,
    /// Seconds of processor time.
    pub cpu_s: u32,
    /// MiB of memory that it may write to.
    pub memory_mb: u32,
    /// MiB of its largest file.
    pub file_mb: u32,
    /// Seconds for one frame.
    pub run_s: u32,
}

impl Limits {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Self {
        let proof = config.proof;
        Self {
            wall_s: proof.wall_s,
            cpu_s: proof.cpu_s,
            memory_mb: proof.memory_mb,
            file_mb: proof.file_mb,
            run_s: config.inference.run_limit_s,
        }
    }

    fn wall(self) -> Duration {
        Duration::from_secs(self.wall_s.into())
    }
}

/// That a bundle was proven, and which graph it was.
#[derive(Debug, Clone)]
pub struct Proof {
    pub(crate) graph: Proven,
    /// Whether the proof is of an earlier start.
    pub(crate) kept: bool,
}

/// The graph that was proven.
#[derive(Debug, Clone)]
pub(crate) enum Proven {
    /// The bundle's own.
    Own,
    /// What the runtime made of it for this processor.
    Optimised(Optimised),
}

impl Proof {
    /// For a bundle that nothing proved: one of this program's tests, or one that has answered here
    /// before and cannot be tried now.
    pub fn unsafe_without() -> Self {
        Self { graph: Proven::Own, kept: false }
    }

    /// Whether it is of an earlier start.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    pub(crate) fn new(graph: Proven) -> Self {
        Self { graph, kept: false }
    }

    pub(crate) fn kept(graph: Proven) -> Self {
        Self { graph, kept: true }
    }
}

/// What the child is to do: the first line of its standard input. The frames' pixels follow.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    /// The process that asks.
    parent: u32,
    bundle: BundleDigest,
    /// Where the bundle is; read only.
    folder: PathBuf,
    library: PathBuf,
    /// Where the optimised graph goes; its folder is the only one that is written to.
    out: PathBuf,
    limits: Limits,
    frames: Vec<Picture>,
}

/// A frame without its pixels.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Picture {
    width: u32,
    height: u32,
    is_colour: bool,
}

impl Picture {
    fn of(frame: &Frame) -> Self {
        let is_colour = frame.channels() == Channels::Rgb;
        Self { width: frame.width(), height: frame.height(), is_colour }
    }

    fn channels(self) -> Channels {
        if self.is_colour { Channels::Rgb } else { Channels::Grey }
    }

    fn len(self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * self.channels().count() as u64
    }
}

/// What the child says at its end: one line on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// It answered.
    Proven {
        /// The SHA-256 of the optimised graph; none when the bundle's own was proven.
        optimised: Option<Digest>,
        /// What the kernel enforces, in words.
        confined: String,
    },
    /// The model is at fault.
    Refused {
        /// In words.
        reason: String,
    },
    /// Something else is: the model was not tried.
    Untried {
        /// In words.
        reason: String,
    },
}
