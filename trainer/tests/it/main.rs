//! The trainer as a whole: against ONNX Runtime, on a small dataset, at the command line, and
//! working for a hub that is played by the test.

#![allow(missing_docs)]

mod arrays;
mod cases;
mod cli;
mod data;
mod folder;
mod forward;
mod job;
mod quantized;
mod resume;
mod starters;
mod worker;
