//! One side of `cargo xtask bench trainer`: trains a graph a few steps at a time, as it is told.
//!
//! ```text
//! step make CASE FOLDER             writes model.onnx, x.f32, labels.i64 and shape.txt
//! step run FOLDER --threads N       then reads lines: "N" does so many steps
//! ```
//!
//! For every line one JSON object comes back: processor and wall seconds of these steps, the last
//! loss, and the process's memory (now and at its peak) in bytes. The first object comes before the
//! first step. A step is what the product's training loop does: a batch from the host, forward,
//! cross-entropy, backward, AdamW, running statistics.

mod networks;

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use burn::tensor::Device;
use trainer::graph::{Context, Graph, Plan, Sizes};
use trainer::kernels::together;
use trainer::onnx::Model;
use trainer::ops::tensor;
use trainer::random::Random;
use trainer::starter::{Head, Kind, starter};
use trainer::train::Recipe;
use trainer::train::loss::{cross_entropy, smoothed};
use trainer::train::optimizer::Optimizer;

const CLASSES: usize = 10;
const LEARNING_RATE: f64 = 1e-3;
const WEIGHT_DECAY: f64 = 0.01;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // What `cargo test --benches` asks for: there is nothing to do without a case.
        [] => Ok(()),
        ["make", case, folder] => make(case, Path::new(folder)),
        ["run", folder, "--threads", threads] => run(Path::new(folder), threads.parse()?),
        _ => bail!("use: step make CASE FOLDER | step run FOLDER --threads N"),
    }
}

fn make(case: &str, folder: &Path) -> Result<()> {
    let (model, shape) = match case {
        "small-cnn" => (
            starter(Kind::PictureCnn, &[1, 28, 28], Head::Classes(CLASSES), 7)?,
            vec![64, 1, 28, 28],
        ),
        "resnet18-64" => (networks::resnet18(CLASSES)?, vec![32, 3, 64, 64]),
        "cnn-1d" => (networks::signal(CLASSES)?, vec![64, 2, 1024]),
        other => bail!("there is no case {other}"),
    };
    let mut random = Random::new(11);
    let count = shape.iter().product::<usize>();
    let x: Vec<u8> = (0..count).flat_map(|_| random.normal().to_le_bytes()).collect();
    let labels: Vec<u8> =
        (0..shape[0]).flat_map(|_| (random.below(CLASSES) as i64).to_le_bytes()).collect();
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let files = [
        ("model.onnx", model),
        ("x.f32", x),
        ("labels.i64", labels),
        ("shape.txt", sizes.join(" ").into()),
    ];
    for (name, bytes) in files {
        let mut file = std::fs::File::create(folder.join(name))?;
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// What is trained, and on what.
struct Case {
    graph: Graph,
    plan: Plan,
    optimizer: Optimizer,
    shape: Vec<usize>,
    x: Vec<f32>,
    labels: Vec<usize>,
}

impl Case {
    fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| std::fs::read(folder.join(name)).with_context(|| name.to_owned());
        let shape = String::from_utf8(read("shape.txt")?)?;
        let shape = shape.split(' ').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let word = |chunk: &[u8]| std::array::from_fn(|i| chunk[i]);
        let x = read("x.f32")?.chunks_exact(4).map(|c| f32::from_le_bytes(word(c))).collect();
        let eight = |chunk: &[u8]| std::array::from_fn(|i| chunk[i]);
        let labels = read("labels.i64")?
            .chunks_exact(8)
            .map(|c| i64::from_le_bytes(eight(c)) as usize)
            .collect();
        let model = Model::parse(read("model.onnx")?)?;
        let inputs = Sizes::batch(shape[0]).inputs(&model)?;
        let graph = Graph::load(model, &inputs, &Device::flex())?;
        let plan = graph.plan(&inputs, &[graph.logits()])?;
        let optimizer = Optimizer::new(&Recipe { weight_decay: WEIGHT_DECAY, ..Recipe::starter() });
        Ok(Self { graph, plan, optimizer, shape, x, labels })
    }

    fn step(&mut self, device: &Device) -> f32 {
        let x = tensor::from_host(self.x.clone(), &self.shape, device);
        let leaves = self.graph.parameters.leaves();
        let mut context = Context::train(device, Random::new(0));
        let logits = self.plan.run(&leaves, vec![x], &mut context).remove(0);
        let target = smoothed(&self.labels, CLASSES, 0.0);
        let target = tensor::from_host(target, &[self.labels.len(), CLASSES], device);
        let loss = cross_entropy(logits, target);
        let value = loss.clone().into_data().iter::<f32>().next().unwrap_or(f32::NAN);
        let gradients = loss.backward();
        self.optimizer.step(&mut self.graph.parameters, leaves, gradients, LEARNING_RATE);
        self.graph.parameters.observe(context.observed);
        value
    }
}

fn run(folder: &Path, threads: usize) -> Result<()> {
    trainer::memory::keep_freed();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let device = Device::flex().autodiff();
    let mut case = Case::read(folder)?;
    report(0.0, 0.0, f32::NAN)?;
    for line in std::io::stdin().lock().lines() {
        let steps: usize = line?.trim().parse()?;
        let (processor, begun) = (processor_seconds()?, Instant::now());
        let mut loss = f32::NAN;
        for _ in 0..steps {
            loss = together(|| case.step(&device));
        }
        let wall = begun.elapsed().as_secs_f64();
        report(processor_seconds()? - processor, wall, loss)?;
    }
    Ok(())
}

fn report(processor_s: f64, wall_s: f64, loss: f32) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let bytes = |name: &str| -> Result<u64> {
        let line = status.lines().find(|l| l.starts_with(name)).context("no such line")?;
        let number = line.split_whitespace().nth(1).context("no number")?;
        Ok(number.parse::<u64>()? * 1024)
    };
    let (now, peak) = (bytes("VmRSS:")?, bytes("VmHWM:")?);
    let line = serde_json::json!({
        "processor_s": processor_s, "wall_s": wall_s, "loss": loss, "now_bytes": now, "peak_bytes": peak,
        "version": env!("CARGO_PKG_VERSION"),
    });
    println!("{line}");
    Ok(())
}

/// User and system time of all threads of this process.
fn processor_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').context("no name")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in clock ticks of 10 ms.
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}
