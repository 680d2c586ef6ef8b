//! The agent's command line.

use std::io::IsTerminal as _;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use edge_agent::clock::Clock;
use edge_agent::config::{Config, Place};
use edge_agent::infer::Proving;
use edge_agent::outbox::{self, Exported};
use edge_agent::proof::{self, Limits, Prover};
use edge_agent::{check, enroll, home, memory, priority, run, status, tls};
use fleetloop_models::session::keep_to_itself;
use fleetloop_observe::output::Output;
use fleetloop_observe::{log, otlp, output, private};
use tracing_subscriber::layer::{Identity, Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Runs a model beside a sensor and sends home what is worth learning from.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How logs are written to standard error; RUST_LOG filters them.
    #[arg(long, global = true, value_enum, default_value = "human")]
    log: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Enrols this device with a hub, once.
    Enroll {
        /// The token that 'fleet-hub device add' printed; '-' reads it from standard input.
        #[arg(long, env = "FLEETLOOP_TOKEN", hide_env_values = true)]
        token: String,
        /// The data folder to make.
        #[arg(long)]
        data: PathBuf,
    },
    /// Runs until SIGINT or SIGTERM; the last line on standard output is JSON.
    Run {
        /// The configuration; agent.example.toml shows every key. Given more than once, an agent runs
        /// for each: several enrolled devices with a model each in one process.
        #[arg(long, default_value = "agent.toml")]
        config: Vec<PathBuf>,
    },
    /// Looks at library, model, golden cases and source, and measures the capacity.
    Check {
        #[command(flatten)]
        config: Configured,
        /// Checks the bundle in this folder instead of the installed one.
        #[arg(long)]
        bundle: Option<PathBuf>,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tries a model, for the agent that starts this; not for people.
    #[command(name = proof::COMMAND, hide = true)]
    Prove,
    /// Finds the hub again after it moved while this device was away: takes its signed addresses from
    /// whoever has them.
    Rehome {
        /// The data folder of the device.
        #[arg(long)]
        data: PathBuf,
        /// Where the hub's device listener may be: https://HOST:PORT. It is a hint: addresses are
        /// taken only with the signatures of the hub that the device enrolled with.
        #[arg(long, value_name = "URL")]
        hub: String,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// What this device still has to send.
    Outbox {
        #[command(subcommand)]
        command: OutboxCommand,
    },
    /// Says how the agent is.
    Status {
        #[command(flatten)]
        config: Configured,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum OutboxCommand {
    /// Writes what waits to a file, for 'fleet-hub sample collect': for a device that was replaced, or
    /// that does not reach its hub any more. The agent must not run; the outbox stays as it is.
    Export {
        /// The data folder of the device; it may be on a disk that is read-only.
        #[arg(long)]
        data: PathBuf,
        /// The file to write. It must not be there yet; its disk needs twice the room of the outbox.
        #[arg(long)]
        out: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Configured {
    /// The configuration; agent.example.toml shows every key.
    #[arg(long, default_value = "agent.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    private::from_now_on();
    memory::give_back_freed();
    keep_to_itself();
    tls::install_provider();
    let cli = Cli::parse();
    if matches!(cli.command, Command::Prove) {
        return proof::main();
    }
    match execute(cli.command, cli.log) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", output::error(&error));
            ExitCode::FAILURE
        }
    }
}

/// Log lines to standard error, and what `spans` makes of them.
fn start_log(chosen: LogFormat, spans: Option<impl Layer<Registry> + Send + Sync>) {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let format = match chosen {
        LogFormat::Human => log::Format::Human,
        LogFormat::Json => log::Format::Json,
    };
    let lines = log::layer(format, std::io::stderr, std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).init();
}

fn execute(command: Command, lines: LogFormat) -> anyhow::Result<ExitCode> {
    if !matches!(command, Command::Run { .. }) {
        start_log(lines, None::<Identity>);
    }
    let runtime = || {
        // On a single processor a second thread would only be woken to find nothing.
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.min(2))
            .on_thread_start(priority::give_way)
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")
    };
    match command {
        Command::Enroll { token, data } => {
            let token = if token == "-" {
                std::io::read_to_string(std::io::stdin()).context("cannot read the token")?
            } else {
                token
            };
            private::secure(&data)?;
            let enrolled = runtime()?.block_on(enroll::enroll(token.trim(), &data))?;
            output::print(&format!("enrolled as {} with {}", enrolled.device, enrolled.hub))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { config } => {
            let load = |path: PathBuf| Config::load(&path).map(|config| (path, config));
            let configs = config.into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
            let exports = configs.iter().any(|(_, config)| config.telemetry.otlp.is_some());
            let (layer, spans) = exports.then(|| otlp::channel(env!("CARGO_CRATE_NAME"))).unzip();
            start_log(lines, layer);
            let runtime = runtime()?;
            let stopped = runtime.block_on(run::run(configs, spans))?;
            // What the drain gave up must not hold the process.
            runtime.shutdown_background();
            for last_words in stopped {
                output::print(&serde_json::to_string(&last_words)?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { config, bundle, json } => {
            let config = Config::load(&config.config)?;
            let scratch =
                tempfile::tempdir().context("cannot make a folder to try the model in")?;
            let prover = Prover::new(scratch.path(), Limits::of(&config));
            let report = check::check(&config, bundle.as_deref(), &Proving::InChild(prover));
            Output::with_json(json).print(&report, ToString::to_string)?;
            Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Prove => Ok(proof::main()),
        Command::Rehome { data, hub, json } => {
            let found = runtime()?.block_on(home::rehome(&data, &hub))?;
            Output::with_json(json).print(&found, ToString::to_string)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Outbox { command: OutboxCommand::Export { data, out, json } } => {
            let exported = runtime()?.block_on(export(data, out))?;
            Output::with_json(json).print(&exported, ToString::to_string)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status { config, json } => {
            let place = Place::load(&config.config)?;
            let status = runtime()?.block_on(status::status(&place));
            Output::with_json(json).print(&status, ToString::to_string)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Exports an outbox; Ctrl-C ends it and leaves nothing behind.
async fn export(data: PathBuf, out: PathBuf) -> anyhow::Result<Exported> {
    let clock = Clock::system(data.join("clock.json"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let work = tokio::task::spawn_blocking(move || outbox::export(&data, &out, clock, &asked));
    tokio::pin!(work);
    // Both are cancel-safe: the work is waited for again after the signal.
    tokio::select! {
        done = &mut work => return Ok(done??),
        _ = tokio::signal::ctrl_c() => stop.store(true, Ordering::Relaxed),
    }
    Ok(work.await??)
}
