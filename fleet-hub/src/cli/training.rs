//! `fleet-hub train …`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::jobs::{Base, Job, JobId, JobKind, JobState, TrainRequest};

use super::Usage;
use super::client::Client;
use super::progress::Progress;
use super::resolve;
use super::table::{Table, facts};

/// How often a job is looked at while waiting for it.
const LOOK: Duration = Duration::from_millis(500);

/// The largest recipe, in bytes: a page of TOML.
const RECIPE_BYTES: usize = 64 * 1024;

/// What can be done with training jobs.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Asks for a model to be trained; a worker takes the job.
    Start(Start),
    /// Lists the jobs, evaluations too, the newest first.
    List,
    /// Shows one job.
    Show {
        /// Its number.
        job: u64,
    },
}

/// What to train.
#[derive(Debug, Clone, clap::Args)]
pub struct Start {
    /// The model's name; the hub picks the version.
    model: String,
    /// The frozen dataset: its digest, the beginning of it, or its name.
    #[arg(long)]
    dataset: String,
    /// Starts from a new graph of this kind, with random weights.
    #[arg(long, value_name = "KIND", requires = "input", conflicts_with = "base")]
    starter: Option<String>,
    /// The new graph's input: channels x height x width, such as 1x28x28.
    #[arg(long, value_name = "CxHxW", value_parser = shape, requires = "starter", conflicts_with = "base")]
    input: Option<Shape>,
    /// Starts from this bundle: its digest, the beginning of it, or NAME/VERSION.
    #[arg(long, value_name = "BUNDLE", required_unless_present = "starter")]
    base: Option<String>,
    /// How to train: a TOML file; the trainer's defaults without it.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// The seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Waits until the job is done.
    #[arg(long)]
    wait: bool,
}

/// The shape of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape(Vec<usize>);

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused, or the job failed while waited for.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start(start) => begin(client, output, start).await,
        Command::List => {
            let jobs: Vec<Job> = client.get("list jobs", "/jobs").await?;
            output.print(&jobs, |all| list(all))
        }
        Command::Show { job } => {
            let job: Job = client.get(&format!("show job {job}"), &format!("/jobs/{job}")).await?;
            output.print(&job, show)
        }
    }
}

async fn begin(client: &Client, output: Output, start: Start) -> anyhow::Result<()> {
    let base = match (start.starter, start.input, start.base) {
        (Some(kind), Some(Shape(input)), None) => Base::Starter { kind, input },
        (None, None, Some(base)) => Base::Bundle { bundle: resolve::bundle(client, &base).await? },
        _ => return Err(Usage("name either --starter with --input, or --base".into()).into()),
    };
    let recipe = match &start.recipe {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read recipe {}", path.display()))?,
    };
    if recipe.len() > RECIPE_BYTES {
        bail!("cannot use recipe: it has {} bytes, the limit is {RECIPE_BYTES}", recipe.len());
    }
    let request = TrainRequest {
        dataset: resolve::dataset(client, &start.dataset).await?,
        model: start.model,
        base,
        recipe,
        seed: start.seed,
    };
    let operation = format!("start training of {}", request.model);
    let mut job: Job = client.post(&operation, "/jobs", &request).await?;
    if start.wait {
        job = wait(client, job.id).await?;
    }
    output.print(&job, show)?;
    ended_well(&job)
}

/// That a job did not fail and is not held.
///
/// # Errors
/// Why it did, or is.
pub(super) fn ended_well(job: &Job) -> anyhow::Result<()> {
    match &job.state {
        JobState::Failed { reason } => bail!("job {} failed: {reason}", job.id.0),
        JobState::Held { reason } => bail!("job {} is held: {reason}", job.id.0),
        _ => Ok(()),
    }
}

/// Waits for the end of a job.
///
/// # Errors
/// The hub was not reached.
pub(super) async fn wait(client: &Client, id: JobId) -> anyhow::Result<Job> {
    const STEPS: u64 = 1000;
    let mut progress = Progress::new("waits for a worker", STEPS);
    loop {
        let operation = format!("wait for job {}", id.0);
        let job: Job = client.get(&operation, &format!("/jobs/{}", id.0)).await?;
        match (&job.state, &job.progress) {
            (JobState::Done { .. } | JobState::Held { .. } | JobState::Failed { .. }, _) => {
                progress.finish();
                return Ok(job);
            }
            (JobState::Running { worker }, Some(at)) => {
                let loss = at.loss.map_or(String::new(), |loss| format!(", loss {loss:.4}"));
                progress.say(&at.phase, &format!("{} on {worker}{loss}", at.phase));
                progress.set((at.fraction.clamp(0.0, 1.0) * STEPS as f32) as u64, STEPS);
            }
            (JobState::Running { worker }, None) => {
                progress.say("started", &format!("started on {worker}"));
            }
            (JobState::Queued, _) => progress.say("waits for a worker", "waits for a worker"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn state(job: &Job) -> String {
    match &job.state {
        JobState::Queued => "waits".into(),
        JobState::Running { worker } => format!("runs on {worker}"),
        JobState::Done { bundle } => format!("done: {}", bundle.0.short()),
        JobState::Held { reason } => format!("held: {reason}"),
        JobState::Failed { reason } => format!("failed: {reason}"),
    }
}

/// How far a job is that is under way.
fn progress(job: &Job) -> String {
    if !matches!(job.state, JobState::Queued | JobState::Running { .. }) {
        return "-".into();
    }
    job.progress.as_ref().map_or("-".into(), |at| {
        let loss = at.loss.map_or(String::new(), |loss| format!(", loss {loss:.4}"));
        format!("{} {:.0} %{loss}", at.phase, at.fraction * 100.0)
    })
}

fn list(jobs: &[Job]) -> String {
    let mut table = Table::new(&["#job", "model", "dataset", "state", "progress", "#tries", "by"]);
    for job in jobs {
        table.row([
            job.id.0.to_string(),
            format!("{}/{}", job.spec.model, job.spec.version),
            job.spec.dataset.short(),
            match (job.spec.kind, state(job)) {
                (JobKind::Train, state) => state,
                (JobKind::Evaluate, state) => format!("evaluation {state}"),
            },
            progress(job),
            job.attempts.to_string(),
            job.requested_by.clone(),
        ]);
    }
    table.render("no jobs yet; start one with 'fleet-hub train start MODEL'")
}

/// A job for people.
pub(super) fn show(job: &Job) -> String {
    let (kind, from) = match job.spec.kind {
        JobKind::Train => ("train", "starts from"),
        JobKind::Evaluate => ("evaluate", "evaluates"),
    };
    let base = match &job.spec.base {
        Base::Starter { kind, input } => {
            let sizes: Vec<String> = input.iter().map(ToString::to_string).collect();
            format!("{kind}, {}", sizes.join("x"))
        }
        Base::Bundle { bundle } => bundle.to_string(),
    };
    let mut pairs = vec![
        ("job", job.id.0.to_string()),
        ("kind", kind.to_owned()),
        ("model", format!("{}/{}", job.spec.model, job.spec.version)),
        (from, base),
        ("dataset", job.spec.dataset.to_string()),
        ("seed", job.spec.seed.to_string()),
        ("state", state(job)),
        ("progress", progress(job)),
        ("tries", job.attempts.to_string()),
        ("asked by", job.requested_by.clone()),
    ];
    let left_out = job.progress.as_ref().filter(|at| at.left_out > 0);
    if let Some(at) = left_out {
        let first = at.left_out_first.iter();
        let named: Vec<_> = first.map(|out| format!("{}: {}", out.sample, out.reason)).collect();
        pairs.push(("left out", format!("{} samples: {}", at.left_out, named.join("; "))));
    }
    if let JobState::Done { bundle } = &job.state {
        pairs.push(("bundle", bundle.to_string()));
    }
    facts(&pairs)
}

fn shape(text: &str) -> Result<Shape, String> {
    let sizes: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
    match sizes {
        Ok(sizes) if sizes.len() == 3 && sizes.iter().all(|&size| size > 0) => Ok(Shape(sizes)),
        _ => Err(format!(
            "{text:?} is not a shape; write channels x height x width, such as 1x28x28"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(std::iter::once("train").chain(line.split(' ')))
    }

    #[test]
    fn a_job_starts_from_a_starter_or_from_a_bundle_never_from_both_or_neither() {
        assert!(parse("start m --dataset d --starter picture-cnn --input 1x28x28").is_ok());
        assert!(parse("start m --dataset d --base m/1").is_ok());
        for line in [
            "start m --dataset d",
            "start m --dataset d --starter picture-cnn",
            "start m --dataset d --base m/1 --input 1x28x28",
            "start m --dataset d --base m/1 --starter picture-cnn --input 1x28x28",
            "start m --base m/1",
            "start m --dataset d --starter picture-cnn --input 1x0x28",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
