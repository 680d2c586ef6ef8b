//! The hostile models at the door of this crate, and what is harmless beside them.

mod hostile;

use fleetloop_models::bundle::{Bundle, BundleError};
use fleetloop_models::graph::{Graph, SUBGRAPHS_DEEP};
use fleetloop_models::session::{Runtime, Session, Threads};
use hostile::build::{Message, floats, harmless, model, node, plain, subgraph};
use hostile::{bundle, endless, refused};

#[test]
fn every_model_that_no_door_lets_in_is_refused_with_its_reason() {
    for case in refused::all() {
        let error = Graph::check(case.file).map(drop).unwrap_err().to_string();
        assert!(error.contains(case.reason), "{}: {error}", case.name);
    }
}

#[test]
fn a_bundle_of_a_refused_model_is_none() {
    for case in refused::all() {
        let parts = bundle::Parts::of(&case.file, 7);
        let error = Bundle::from_parts(parts.manifest, parts.files).map(drop).unwrap_err();
        assert!(matches!(error, BundleError::Graph(_)), "{}: {error}", case.name);
    }
}

#[test]
fn what_is_harmless_passes_and_answers() {
    let harmless = Graph::check(plain()).unwrap();
    let parts = bundle::Parts::of(harmless.bytes(), 7);
    let bundle = Bundle::from_parts(parts.manifest, parts.files).unwrap();
    let runtime = Runtime::load(None).unwrap();
    let mut session = Session::open(&runtime, &bundle, Threads(1)).unwrap();
    bundle.golden().check(&mut session).unwrap();
}

/// Models that worked before there was a check.
#[test]
fn an_imported_domain_a_function_and_a_quantised_operator_pass() {
    let set = |domain: &str| Message::new().text(1, domain).number(2, 1);
    let imported =
        model(&harmless()).message(8, &set("com.example")).message(8, &set("ai.onnx.ml"));
    let quantised = node("QLinearAdd", &["input"], &["q"]).text(7, "com.microsoft");
    let quantised = model(&harmless().message(1, &quantised));
    let call = node("relu", &["input"], &["r"]).text(7, "pkg.onnxscript.torch_lib");
    let relu = node("Relu", &["a"], &["z"]);
    let function = Message::new().text(1, "relu").text(10, "pkg.onnxscript.torch_lib");
    let function = function.text(4, "a").text(5, "z").message(7, &relu);
    let function = model(&harmless().message(1, &call)).message(25, &function);
    let packed = Message::new().bytes(1, &[2, 3]).number(2, 1).bytes(4, &[0; 24]);
    let packed = model(&harmless().message(5, &packed));
    let empty = model(&harmless().message(5, &floats("none", &[0], &[])));
    let mut deep = Message::new().message(1, &node("Identity", &["input"], &["x"]));
    for _ in 1..SUBGRAPHS_DEEP {
        let outer = node("If", &["c"], &["x"]).message(5, &subgraph("then_branch", &deep));
        deep = Message::new().message(1, &outer);
    }
    let deep = node("If", &["c"], &["x"]).message(5, &subgraph("then_branch", &deep));
    let deep = model(&harmless().message(1, &deep));
    for model in [imported, quantised, function, packed, empty, deep] {
        Graph::check(model.0).unwrap();
    }
}

/// What no file says: how long it runs and how much memory it takes. The agent's tests bound it.
#[test]
fn what_only_running_shows_passes_the_check() {
    for case in endless::all() {
        Graph::check(case.file).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

#[test]
fn a_name_in_a_reason_cannot_forge_a_line_or_fill_a_log() {
    let name = format!("evil\n\u{1b}[31m{}", "x".repeat(10_000));
    let bad = model(&harmless().message(1, &node("Relu", &[], &["o"]).text(7, &name)));
    let error = Graph::check(bad.0).map(drop).unwrap_err().to_string();
    assert!(!error.contains(['\n', '\u{1b}']) && error.len() < 400, "{error}");
}
