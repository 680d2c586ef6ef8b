//! The agent's command line.

use std::io::IsTerminal as _;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use edge_agent::config::{Config, Place};
use edge_agent::{check, enroll, memory, priority, run, status, tls};
use fleetloop_models::session::keep_to_itself;
use fleetloop_observe::output::Output;
use fleetloop_observe::{otlp, output};
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
    /// Says how the agent is.
    Status {
        #[command(flatten)]
        config: Configured,
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
    memory::give_back_freed();
    keep_to_itself();
    tls::install_provider();
    let cli = Cli::parse();
    match execute(cli.command, cli.log) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Log lines to standard error, and what `spans` makes of them.
fn start_log(format: LogFormat, spans: Option<impl Layer<Registry> + Send + Sync>) {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).init();
}

fn execute(command: Command, log: LogFormat) -> anyhow::Result<ExitCode> {
    if !matches!(command, Command::Run { .. }) {
        start_log(log, None::<Identity>);
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
            let enrolled = runtime()?.block_on(enroll::enroll(token.trim(), &data))?;
            output::print(&format!("enrolled as {} with {}", enrolled.device, enrolled.hub))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { config } => {
            let load = |path: PathBuf| Config::load(&path).map(|config| (path, config));
            let configs = config.into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
            let exports = configs.iter().any(|(_, config)| config.telemetry.otlp.is_some());
            let (layer, spans) = exports.then(|| otlp::channel(env!("CARGO_CRATE_NAME"))).unzip();
            start_log(log, layer);
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
            let report = check::check(&Config::load(&config.config)?, bundle.as_deref());
            Output::with_json(json).print(&report, ToString::to_string)?;
            Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Status { config, json } => {
            let place = Place::load(&config.config)?;
            let status = runtime()?.block_on(status::status(&place));
            Output::with_json(json).print(&status, ToString::to_string)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
