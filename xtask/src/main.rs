//! The developer's commands, `cargo xtask <command>`.
//!
//! They depend on nothing of the product and write only below `target/` and `.fleetloop/` of the
//! checkout; both can be deleted at any time.

mod audit;
mod bench;
mod demo;
mod fuzz;
mod hil;
mod setup;
mod shell;
mod test;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developer's commands of Fleetloop")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch what is missing: ONNX Runtime's library and the Fashion-MNIST pictures
    Setup,
    /// Set up, build and watch a small fleet close the loop
    #[command(disable_help_flag = true)]
    Demo {
        /// Options of the demo itself; see 'cargo xtask demo --help'
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Set up, build and run scenarios on this machine: power cuts, faults, the whole loop
    #[command(disable_help_flag = true)]
    Hil {
        /// Options and scenarios; see 'cargo xtask hil --help'
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Format, clippy, all tests, doc tests and documentation, without a warning
    Test,
    /// Measure beside a peer, and print ratios
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Licences, bans, sources and advisories of all dependencies
    Audit,
    /// Feed a decoder bytes that nobody vouches for, until it fails or for as long as told
    Fuzz(fuzz::Fuzz),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run().map(|()| true),
        Command::Demo { options } => demo::run(&options).map(|never| match never {}),
        Command::Hil { options } => hil::run(&options).map(|never| match never {}),
        Command::Test => test::run(),
        Command::Audit => audit::run(),
        Command::Bench { what } => bench::run(&what).map(|()| true),
        Command::Fuzz(command) => command.run(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
