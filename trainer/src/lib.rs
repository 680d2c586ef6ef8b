//! The trainer of Fleetloop: retrains ONNX graphs, evaluates them, and works for a hub.
//!
//! ```text
//!  model.onnx ─► onnx ─► graph (load, check, plan, run) ─► train ─► onnx::patch ─► model.onnx
//!                          └── ops                          │                        │
//!  dataset, arrays ──────────────────────────────────────► job ◄──── evaluate ◄──────┘
//!                                                           │        (ONNX Runtime)
//!                                        worker ◄── hub ────┘
//! ```
//!
//! The model file is the training script: no code per architecture, no Python. What is evaluated is
//! the very file that ships.

pub mod arrays;
pub mod blobs;
pub mod chain;
pub mod cli;
pub mod dataset;
pub mod durable;
pub mod evaluate;
pub mod folder;
pub mod graph;
pub mod job;
pub mod kernels;
pub mod memory;
pub mod onnx;
pub mod ops;
pub mod pack;
pub mod random;
pub mod record;
pub mod starter;
pub mod train;
pub mod worker;
