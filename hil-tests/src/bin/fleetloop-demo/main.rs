//! `fleetloop-demo`: a small fleet notices that the world changed, asks for labels, learns and
//! recovers, on this machine, as separate processes.
//!
//! The same program runs the scenarios of `cargo xtask hil`, is the leash of every process it starts
//! and the person who labels (hidden commands). Exit status: 0 when every figure reaches its limit, 1 when one does not or the run
//! failed, 130 when it was interrupted. However it ends, no process stays behind.

mod folder;
mod hil;
mod interrupt;
mod screen;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use hil_tests::fleet::Assets;
use hil_tests::progress::{Lines, Progress};
use hil_tests::rig::{Rig as _, ThisMachine, leash};
use hil_tests::scenario::close_the_loop::{self, Outcome, Plan, table};
use hil_tests::{annotator, files};

use folder::Folder;
use interrupt::{Interrupt, Running};
use screen::Screen;

/// How long processes may take to end in order before they are forced.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(
    name = "cargo xtask demo",
    about = "Watch a small fleet notice that the world changed, ask for labels, learn and recover",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    #[command(flatten)]
    options: Options,
}

#[derive(clap::Args)]
struct Options {
    /// Write the figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave hub and agents running at the end, to look at the page; Ctrl-C ends them
    #[arg(long)]
    keep: bool,
    /// Keep all files and logs in this folder, which must not exist yet
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// A smaller run: two devices and fewer pictures
    #[arg(long)]
    small: bool,
    /// Kill the hub, an agent and the training worker on the way; the run still ends well
    #[arg(long)]
    kills: bool,
}

#[derive(Subcommand)]
enum Hidden {
    /// Becomes a program that dies with PARENT
    #[command(hide = true)]
    Leash {
        parent: u32,
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run scenarios against the built programs: power cuts, the whole loop
    #[command(hide = true, bin_name = "cargo xtask hil", after_help = hil::list())]
    Hil(hil::Options),
    /// Labels what the hub asks for, in place of a person
    #[command(hide = true)]
    Annotate(annotator::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.hidden {
        Some(Hidden::Leash { parent, program, arguments }) => {
            leash::become_program(*parent, program, arguments).map(|never| match never {})
        }
        Some(Hidden::Hil(options)) => hil::run(options),
        Some(Hidden::Annotate(options)) => annotator::run(options).map(|()| true),
        None => demo(&cli.options),
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

/// Runs the demo; whether every figure reached its limit.
fn demo(options: &Options) -> Result<bool> {
    let folder = Folder::new(options.folder.as_deref())?;
    let demo = std::env::current_exe().context("cannot tell where this program lies")?;
    let rig = Arc::new(ThisMachine::new(folder.path(), &demo)?);
    let running = Running::default();
    running.set(Arc::clone(&rig), folder.removed_at_end());
    let interrupt = Interrupt::listen(running)?;
    let progress = watcher();
    let result = run(options, rig.as_ref(), progress.as_ref());
    interrupt.wait_if_interrupted();
    rig.stop_all(GRACE);
    match &result {
        Ok(true) => folder.close(),
        _ => eprintln!("files and logs stay in {}", folder.path().display()),
    }
    result
}

/// A bar where somebody looks, lines where nobody does.
fn watcher() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() {
        Box::new(Screen::default())
    } else {
        Box::new(Lines::default())
    }
}

fn run(options: &Options, rig: &ThisMachine, progress: &dyn Progress) -> Result<bool> {
    let mut plan = if options.small { Plan::small() } else { Plan::demo() };
    plan.kills = options.kills;
    let limits = plan.limits;
    let outcome = close_the_loop::run(rig, plan, &Assets::of_this_checkout(), progress)?;
    progress.done();
    print!("{}", table::render(&outcome.figures, &limits));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&outcome.figures)? + "\n";
        files::replace(path, text.as_bytes())?;
    }
    let missed = outcome.figures.missed(&limits);
    for miss in &missed {
        eprintln!("missed: {miss}");
    }
    if options.keep {
        keep(outcome)?;
    }
    Ok(missed.is_empty())
}

/// Leaves everything running until the process is interrupted.
fn keep(mut outcome: Outcome<'_>) -> Result<()> {
    for agent in &mut outcome.agents {
        agent.start()?;
    }
    let (url, token) = outcome.hub.api().page();
    println!("\nThe hub's page is at {url}");
    println!("  its certificate is signed by the hub's own CA, which no browser knows");
    println!("  log in with {token}");
    println!(
        "  command line: fleet-hub device list --access {}",
        outcome.hub.access("admin").display()
    );
    println!("Ctrl-C ends it all.");
    loop {
        std::thread::park();
    }
}
