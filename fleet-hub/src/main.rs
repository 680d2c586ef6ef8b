//! The hub's program: `init` makes a hub, `serve` runs it, everything else asks a running one.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fleet_hub::clock::Clock;
use fleet_hub::config::Config;
use fleet_hub::init::{InitOptions, init};
use fleet_hub::serve::Hub;
use fleet_hub::{cli, pki, worker};
use fleetloop_observe::{otlp, output};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::{Identity, Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Takes in what a fleet signs, has it labelled and learned from, and rolls the result out again.
#[derive(Debug, Parser)]
#[command(name = "fleet-hub", version, propagate_version = true)]
struct Program {
    /// How log lines are written, to standard error; what is logged is set by RUST_LOG.
    #[arg(long, global = true, value_enum, default_value = "human")]
    log: Log,
    #[command(flatten)]
    access: cli::Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Log {
    Human,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a new hub: keys, certificates, database, release repository, configuration.
    Init(InitArgs),
    /// Runs the hub until it is told to stop (SIGINT, SIGTERM).
    Serve(ServeArgs),
    #[command(flatten)]
    Ask(cli::Command),
}

#[derive(Debug, Args)]
struct InitArgs {
    /// The data directory; it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where the root key goes: a folder outside the data directory, best on a medium that is
    /// taken out afterwards.
    #[arg(long, value_name = "DIR")]
    offline_keys: PathBuf,
    /// The host name by which devices and people reach this machine.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The labels that samples can be given; more can be added later, none removed.
    #[arg(long, value_delimiter = ',', required = true)]
    labels: Vec<String>,
    /// Where pages, API and enrolment listen; enrolling another machine needs more than loopback.
    #[arg(long, default_value = "127.0.0.1:8443")]
    admin_listen: String,
    /// Where devices fetch models.
    #[arg(long, default_value = "0.0.0.0:8444")]
    device_listen: String,
    /// Where the embedded broker listens.
    #[arg(long, default_value = "0.0.0.0:8883")]
    mqtt_listen: String,
    /// The broker: "embedded", or another as mqtts://host:port.
    #[arg(long, default_value = "embedded")]
    broker: String,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The data directory that 'fleet-hub init' made.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Starts no worker beside the hub; workers elsewhere may still take jobs.
    #[arg(long)]
    no_worker: bool,
}

fn main() -> ExitCode {
    let program = Program::parse();
    pki::tls::install_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(program));
    // Blocking work that a drain cut off must not hold the exit up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}

async fn run(program: Program) -> anyhow::Result<()> {
    if !matches!(program.command, Command::Serve(_)) {
        start_log(program.log, None::<Identity>);
    }
    match program.command {
        Command::Init(args) => Box::pin(run_init(args)).await,
        Command::Serve(args) => Box::pin(run_serve(args, program.log)).await,
        Command::Ask(command) => Box::pin(cli::run(program.access, command)).await,
    }
}

/// Log lines to standard error, and what `spans` makes of them.
fn start_log(log: Log, spans: Option<impl Layer<Registry> + Send + Sync>) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,rmqtt=warn,rmqtt_net=error,rmqtt_codec=warn".into());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match log {
        Log::Human => lines.boxed(),
        Log::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).init();
}

async fn run_init(args: InitArgs) -> anyhow::Result<()> {
    let options = InitOptions {
        data: args.data,
        offline_keys: args.offline_keys,
        host: args.host,
        labels: args.labels,
        admin_listen: args.admin_listen,
        device_listen: args.device_listen,
        mqtt_listen: args.mqtt_listen,
        broker: args.broker,
    };
    let config = init(&options, &Clock::system()).await?;
    let (data, keys) = (config.paths.data.display(), options.offline_keys.display());
    let text = format!(
        "hub made in {data}\n\
         root key in {keys}: keep it away from this machine\n\
         next: fleet-hub serve --data {data}"
    );
    output::print(&text)
}

async fn run_serve(args: ServeArgs, log: Log) -> anyhow::Result<()> {
    let config = Config::load(&args.data)?;
    let (layer, spans) =
        config.telemetry.otlp.as_ref().map(|_| otlp::channel(env!("CARGO_CRATE_NAME"))).unzip();
    start_log(log, layer);
    let drain = Duration::from_secs(config.limits.drain_s.into());
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut hub = Box::pin(Hub::start_with(config, Clock::system(), spans)).await?;
    let state = hub.state().clone();
    let worker = (!args.no_worker).then(|| {
        let access = state.config.paths.data.join("worker.toml");
        tokio::spawn(worker::run(access, state.stopping.clone(), drain))
    });
    let (host, port) = state.config.mqtt_address();
    let (admin, device) = (state.config.admin_url(), state.config.device_url());
    output::print(&format!("ready admin={admin} device={device} mqtt=mqtts://{host}:{port}"))
        .context("cannot say that the hub is ready")?;
    // Cancel-safe: signals are kept, `failed` only watches.
    let failure = tokio::select! {
        failure = hub.failed() => Some(failure),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    tracing::info!("stopping");
    hub.stop().await;
    if let Some(worker) = worker {
        let _ = worker.await;
    }
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}
