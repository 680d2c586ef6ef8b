//! A whole job, from a folder of pictures to a bundle that proves itself.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use fleetloop_models::picture::Frame;
use fleetloop_models::session::{Session, Threads};
use fleetloop_models::statistics::observe_answer;
use fleetloop_protocol::api::datasets::{Dataset, Split};
use fleetloop_protocol::sample::MediaType;
use fleetloop_protocol::sketch::Sketch;
use trainer::blobs::Blobs;
use trainer::chain::chain;
use trainer::dataset;
use trainer::evaluate::summary;
use trainer::job::{Base, JobError, Order, Product, Tools, evaluate_draft, reference, run};
use trainer::pack::Draft;
use trainer::starter::Kind;
use trainer::train::Recipe;

use super::data;

pub fn order(dataset: Dataset, base: Base) -> Order {
    let dataset_digest = fleetloop_protocol::Digest::of(&serde_json::to_vec(&dataset).unwrap());
    let recipe = Recipe::parse("epochs = 3\nbatch_size = 16", &Recipe::retraining()).unwrap();
    Order {
        name: "sides".into(),
        version: 2,
        base,
        dataset,
        dataset_digest,
        recipe,
        seed: 9,
        removed: BTreeSet::new(),
    }
}

pub fn starter() -> Base {
    Base::Starter { kind: Kind::PictureCnn, input: vec![1, data::SIDE, data::SIDE] }
}

fn attempt(order: &Order, payloads: &Blobs, cancel: &AtomicBool) -> Result<Product, JobError> {
    let runtime = data::runtime();
    let device = Device::default();
    let tools = Tools { runtime: &runtime, device, threads: 1, cancel, checkpoints: None };
    run(order, payloads, &tools, &mut |_| {})
}

fn make(order: &Order, payloads: &Blobs) -> Product {
    attempt(order, payloads, &AtomicBool::new(false)).unwrap()
}

#[test]
fn a_job_gives_a_bundle_that_proves_itself_and_the_same_one_again() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = data::folder(dir.path(), 160);
    let dataset::Opened { dataset: read, payloads, .. } = dataset::open(dir.path()).unwrap();
    assert_eq!(read, dataset);

    let first = make(&order(dataset.clone(), starter()), &payloads);
    assert_eq!(
        first.bundle.digest(),
        make(&order(dataset.clone(), starter()), &payloads).bundle.digest()
    );
    assert!(first.base_report.is_none());
    assert_eq!(first.bundle.reference(), None, "40 gate pictures are too few to compare with");
    let runtime = data::runtime();
    let mut session = Session::open(&runtime, &first.bundle, Threads(1)).unwrap();
    assert_eq!(first.bundle.golden().check(&mut session).unwrap().cases, 16);
    let judged = summary(&first.report.outputs);
    assert_eq!(
        judged.overall.total,
        dataset.items.iter().filter(|i| i.split == Split::Gate).count()
    );
    assert!(judged.overall.share > 0.9, "{judged:?}");
    assert!(first.report.outputs.is_sorted_by(|a, b| a.sample < b.sample));

    let second = make(&order(dataset, Base::Bundle(Box::new(first.bundle.clone()))), &payloads);
    assert_eq!(
        second.base_report.unwrap().outputs,
        first.report.outputs,
        "the base is judged as it was"
    );
    let record = &second.record.reproducible;
    assert_eq!(record.base.bundle, Some(first.bundle.digest()));
    assert_eq!(record.patches.len(), 14);
    let changed = first
        .bundle
        .graph()
        .bytes()
        .iter()
        .zip(second.bundle.graph().bytes())
        .enumerate()
        .filter(|(_, (a, b))| a != b);
    for (at, _) in changed {
        let at = at as u64;
        assert!(
            record
                .patches
                .iter()
                .any(|p| (p.offset_bytes..p.offset_bytes + p.length_bytes).contains(&at)),
            "byte {at}"
        );
    }
    assert_eq!(second.bundle.manifest().preprocess, first.bundle.manifest().preprocess);
    let text = serde_json::to_string(&second.record).unwrap();
    assert_eq!(serde_json::from_str::<trainer::record::RunRecord>(&text).unwrap(), second.record);
}

#[test]
fn bad_items_are_left_out_and_named_and_too_many_end_the_job_with_a_list() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let whole = data::dataset(&blobs, 160);
    let bad = blobs.put(b"<html></html>").unwrap();
    let of = |split| whole.items.iter().filter(move |i| i.split == split).map(|i| i.sample);
    let (learned, judged) = (of(Split::Train).next().unwrap(), of(Split::Gate).next().unwrap());
    let removed = of(Split::Train).nth(1).unwrap();
    let spoilt = |samples: &[fleetloop_protocol::Digest]| {
        let mut dataset = whole.clone();
        let items = dataset.items.iter_mut().filter(|item| samples.contains(&item.sample));
        items.for_each(|item| item.payload = bad);
        dataset
    };
    let mut order = order(spoilt(&[learned, judged]), starter());
    order.removed.insert(removed);
    let made = make(&order, &blobs);
    let record = &made.record.reproducible;
    let named: Vec<_> = record.left_out.iter().map(|out| out.sample).collect();
    assert_eq!(named, [removed, learned, judged]);
    assert!(record.left_out[0].reason.contains("removed"), "{:?}", record.left_out);
    assert!(record.left_out[1].reason.contains("HTML"), "{:?}", record.left_out);
    assert_eq!(record.learned_from.values().sum::<usize>(), 118);
    assert!(made.report.outputs.iter().all(|output| output.sample != judged));
    assert_eq!(made.report.outputs.len(), 39);

    let many: Vec<_> = of(Split::Gate).take(5).collect();
    let dataset = spoilt(&many);
    let error = attempt(&self::order(dataset, starter()), &blobs, &AtomicBool::new(false));
    let text = chain(&error.unwrap_err());
    assert!(text.contains("5 of 40 pictures cannot be read"), "{text}");
    assert!(text.contains("HTML") && text.contains(&many[0].short()), "{text}");
}

#[test]
fn what_cannot_be_trained_on_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let whole = data::dataset(&blobs, 40);
    let refuse = |change: &dyn Fn(&mut Dataset)| {
        let mut dataset = whole.clone();
        change(&mut dataset);
        chain(&attempt(&order(dataset, starter()), &blobs, &AtomicBool::new(false)).unwrap_err())
    };
    let text = refuse(&|d| d.items.retain(|i| i.split == Split::Train));
    assert!(text.contains("no item to judge by"), "{text}");
    let text = refuse(&|d| d.items.retain(|i| i.split == Split::Gate));
    assert!(text.contains("no item to learn from"), "{text}");
    let text = refuse(&|d| d.items.iter_mut().for_each(|i| i.label += 1));
    assert!(text.contains("has label 2, the model has 2 classes"), "{text}");
    let text = refuse(&|d| d.items.retain(|i| i.label == 0));
    assert!(text.contains("same label"), "{text}");
    let missing = fleetloop_protocol::Digest::of(b"missing");
    let text = refuse(&|d| d.items[0].payload = missing);
    assert!(
        text.contains(&whole.items[0].sample.to_string()) && text.contains(&missing.to_string()),
        "{text}"
    );
}

#[test]
fn the_record_tells_what_was_frozen_and_which_epoch_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let recipe = "epochs = 3\nbatch_size = 16\nfreeze = \"all-but-head\"\n[early_stopping]";
    let recipe = Recipe::parse(recipe, &Recipe::retraining()).unwrap();
    let order = Order { recipe, ..order(data::dataset(&blobs, 80), starter()) };
    let record = make(&order, &blobs).record.reproducible;
    assert_eq!(record.frozen.len(), 12);
    let patched: Vec<_> = record.patches.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(patched, ["dense2.weight", "dense2.bias"]);
    let losses: Vec<_> = record.curve.iter().map(|e| e.validation_loss.unwrap()).collect();
    let best = losses.iter().copied().fold(f32::INFINITY, f32::min);
    assert_eq!(losses[record.kept_epoch as usize - 1], best);
}

#[test]
fn a_loss_that_does_not_suit_the_dataset_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    for (loss, why) in [("mse", "it wants values"), ("reconstruction", "without targets")] {
        let recipe = Recipe::parse(&format!("loss = \"{loss}\""), &Recipe::starter()).unwrap();
        let order = Order { recipe, ..order(data::dataset(&blobs, 40), starter()) };
        let error = attempt(&order, &blobs, &AtomicBool::new(false)).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(why) && text.contains("one of 2 classes"), "{text}");
    }
}

#[test]
fn a_base_with_other_labels_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut dataset = data::dataset(&blobs, 40);
    let base = make(&order(dataset.clone(), starter()), &blobs).bundle;
    dataset.labels.push("middle".into());
    let error =
        attempt(&order(dataset, Base::Bundle(Box::new(base))), &blobs, &AtomicBool::new(false))
            .unwrap_err();
    assert!(matches!(error, JobError::Mismatch(_)), "{error}");
}

#[test]
fn a_cancelled_job_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let error =
        attempt(&order(data::dataset(&blobs, 40), starter()), &blobs, &AtomicBool::new(true))
            .unwrap_err();
    assert!(error.is_cancelled());
}

#[test]
fn the_reference_is_what_a_device_would_count_of_the_gates_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = data::folder(dir.path(), 2400);
    let payloads = Blobs::open(&dir.path().join("payloads")).unwrap();
    let pictures =
        dataset::Pictures::read(&dataset, Split::Gate, &payloads, &BTreeSet::new()).unwrap();
    let runtime = data::runtime();
    let mut draft = Draft::open(data::about("x"), data::linear(0.003), &runtime, 1).unwrap();
    let outputs =
        evaluate_draft(&mut draft, &pictures, &AtomicBool::new(false), &mut |_| {}).unwrap();
    let made = reference(&pictures, &outputs).unwrap();
    let golden = [(MediaType::Png, payloads.get(pictures.items[0].payload).unwrap())];
    let bundle = draft.finish(&golden, Some(&made)).unwrap();

    let mut session = Session::open(&runtime, &bundle, Threads(1)).unwrap();
    let mut counted = Sketch::default();
    for item in &pictures.items {
        let frame = Frame::decode(item.media_type, &payloads.get(item.payload).unwrap()).unwrap();
        let answer = session.classify(&frame).unwrap();
        counted.add(&observe_answer(&frame, &answer));
    }
    assert_eq!(counted.frames(), 600);
    assert_eq!(bundle.reference().unwrap().sketch(), &counted);
    assert_eq!(reference(&pictures, &outputs[..499]), None, "too few to compare with");
}
