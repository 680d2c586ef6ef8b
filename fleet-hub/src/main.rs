//! The hub's program: `init` makes a hub, `serve` runs it, everything else asks a running one.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fleet_hub::backup::restore::{RestoreOptions, Restored, restore};
use fleet_hub::cli::{human, progress::Progress};
use fleet_hub::clock::Clock;
use fleet_hub::config::Config;
use fleet_hub::init::{InitOptions, init};
use fleet_hub::recover::recover_admin;
use fleet_hub::serve::Hub;
use fleet_hub::{cli, keys, pki, worker};
use fleetloop_observe::names::Names;
use fleetloop_observe::output::Output;
use fleetloop_observe::{log, otlp, output, private};
use sd_notify::NotifyState;
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
    /// Makes a hub of a backup that 'fleet-hub backup' wrote.
    Restore(RestoreArgs),
    /// Runs the hub until it is told to stop (SIGINT, SIGTERM).
    Serve(ServeArgs),
    /// Makes a new admin token when no admin's access file is left; the hub must be stopped.
    RecoverAdmin(RecoverArgs),
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
    /// A name by which devices and people reach this machine; given more than once, the first is
    /// the primary one. An address does, too.
    #[arg(long, default_value = "localhost")]
    host: Vec<String>,
    /// The labels that samples can be given, separated by commas; one that holds a comma stands in double
    /// quotes. More can be added later, none removed.
    #[arg(long)]
    labels: Names,
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
    /// Who can open backups: an age recipient (age1…), more than once if need be. Without it a key
    /// is made beside the offline keys.
    #[arg(long = "backup-recipient", value_name = "RECIPIENT")]
    backup_recipients: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The folder gets everything the archive holds, its owner's only. If it exists, it must be empty, and its \
owner will own the hub. Payloads and artefacts that are not in the archive are named as missing: copy the \
two folders into the data directory before 'fleet-hub serve'.\n\n\
Stop the old hub for good before the new one serves: two hubs with the same keys confuse every device.")]
struct RestoreArgs {
    /// The backup.
    archive: PathBuf,
    /// The key that opens it: backup.key from the offline medium.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The data directory to make; it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, Args)]
struct RecoverArgs {
    /// The data directory that 'fleet-hub init' made.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The data directory that 'fleet-hub init' made.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The clock is right although it is behind what this hub signed before: that was signed while
    /// the clock was ahead.
    #[arg(long)]
    clock_is_right: bool,
    /// Starts no worker beside the hub; workers elsewhere may still take jobs.
    #[arg(long)]
    no_worker: bool,
}

fn main() -> ExitCode {
    private::from_now_on();
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
            eprintln!("{}", output::error(&error));
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
        Command::Restore(args) => Box::pin(run_restore(args, program.access.output())).await,
        Command::Serve(args) => Box::pin(run_serve(args, program.log)).await,
        Command::RecoverAdmin(args) => {
            let config = Config::load(&args.data)?;
            let path = recover_admin(&config, &Clock::system()).await?;
            output::print(&format!("{} has a new admin token", path.display()))
        }
        Command::Ask(command) => Box::pin(cli::run(program.access, command)).await,
    }
}

/// Log lines to standard error, and what `spans` makes of them.
fn start_log(chosen: Log, spans: Option<impl Layer<Registry> + Send + Sync>) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,rmqtt=warn,rmqtt_net=error,rmqtt_codec=warn".into());
    let format = match chosen {
        Log::Human => log::Format::Human,
        Log::Json => log::Format::Json,
    };
    let lines = log::layer(format, std::io::stderr, std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).init();
}

async fn run_init(args: InitArgs) -> anyhow::Result<()> {
    let options = InitOptions {
        data: args.data,
        offline_keys: args.offline_keys,
        hosts: args.host,
        labels: args.labels.0,
        admin_listen: args.admin_listen,
        device_listen: args.device_listen,
        mqtt_listen: args.mqtt_listen,
        broker: args.broker,
        backup_recipients: args.backup_recipients,
    };
    // It takes a moment, and is done as a whole or not at all: Ctrl-C and TERM wait for it.
    let _patient = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let config = init(&options, &Clock::system()).await?;
    let (data, keys) = (config.paths.data.display(), options.offline_keys.display());
    let now = cli::human::time(Clock::system().now().0);
    let text = format!(
        "hub made in {data}, at {now} UTC by this machine's clock\n\
         root key and backup key in {keys}: keep them away from this machine\n\
         next: fleet-hub serve --data {data}"
    );
    output::print(&text)
}

/// Tells the service manager that started this process, if one did.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager does not listen");
    }
}

async fn run_restore(args: RestoreArgs, output: Output) -> anyhow::Result<()> {
    let options = RestoreOptions { archive: args.archive, key: args.key, data: args.data };
    let total = std::fs::metadata(&options.archive).ok().map(|found| found.len());
    let mut progress = Progress::bytes("restore", total);
    let restored = restore(&options, &Clock::system(), |bytes| progress.add(bytes)).await;
    progress.finish();
    output.print(&restored?, |r| told(r, &options.data))
}

/// A restore for people.
fn told(restored: &Restored, data: &Path) -> String {
    let mut text = format!(
        "restored {}: {} files of a backup made at {}\n",
        data.display(),
        restored.files,
        human::time(restored.backup_made_at.0)
    );
    if restored.payloads_missing > 0 {
        text += &format!(
            "missing: the payloads of {} samples; copy payloads/ into the folder\n",
            restored.payloads_missing
        );
    }
    for name in &restored.artefacts_missing {
        text += &format!("missing: {name}; copy artefacts/ into the folder\n");
    }
    if let Some(rollout) = restored.rollout_cancelled {
        text += &format!(
            "rollout {rollout} was under way and is cancelled; start it again if you want it\n"
        );
    }
    text + &format!("next: fleet-hub serve --data {}\n", data.display())
}

async fn run_serve(args: ServeArgs, lines: Log) -> anyhow::Result<()> {
    let config = Config::load(&args.data)?;
    let (layer, spans) =
        config.telemetry.otlp.as_ref().map(|_| otlp::channel(env!("CARGO_CRATE_NAME"))).unzip();
    start_log(lines, layer);
    if !args.clock_is_right {
        keys::check_clock(&config, Clock::system().now())?;
    }
    let drain = Duration::from_secs(config.limits.drain_s.into());
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut hub = Box::pin(Hub::start_with(config, Clock::system(), spans)).await?;
    let state = hub.state().clone();
    let worker = (!args.no_worker).then(|| {
        let start = worker::Start {
            access: state.config.paths.data.join("worker.toml"),
            library: state.config.worker.library.clone(),
            drain,
        };
        tokio::spawn(worker::run(start, state.stopping.clone(), state.vitals.worker.clone()))
    });
    let (host, port) = state.config.mqtt_address();
    let (admin, device) = (state.config.admin_url(), state.config.device_url());
    output::print(&format!("ready admin={admin} device={device} mqtt=mqtts://{host}:{port}"))
        .context("cannot say that the hub is ready")?;
    tell_manager(NotifyState::Ready);
    // Cancel-safe: signals are kept, `failed` only watches.
    let failure = tokio::select! {
        failure = hub.failed() => Some(failure),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    tracing::info!("stopping");
    tell_manager(NotifyState::Stopping);
    hub.stop().await;
    if let Some(worker) = worker {
        let _ = worker.await;
    }
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}
