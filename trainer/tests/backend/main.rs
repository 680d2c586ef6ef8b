//! ONNX's own backend tests (PyPI `onnx`: `node`, `pytorch-converted`, `pytorch-operator`): the
//! forward pass of every operator of the table.
//!
//! A test takes part when all its operators are in the table. It passes, or it is refused when the
//! model is loaded and its reason is one of `refusals.toml`; a failure or an unlisted reason fails
//! this test, and so does a listed reason that nobody gives any more.
//!
//! Inputs are given as they are in use: when the graph runs. Where a graph takes a shape, an axis or a
//! scale from outside and is refused for it, integers and small inputs are given when it is loaded;
//! such passes are counted apart.

mod case;
#[path = "../../../fuzz/src/damage.rs"]
mod damage;
#[path = "../../../fuzz/src/model.rs"]
mod model;
mod refusals;
mod seeds;

use std::collections::BTreeMap;

use case::{Case, Outcome};
use trainer::random::Random;

/// Fewer passes than this and something that worked is gone.
const LEAST_PASSED: usize = 1300;

/// How often each model is damaged in another way.
const DAMAGED: usize = 4;

#[test]
fn every_test_of_the_table_passes_or_is_refused_for_a_listed_reason() {
    let cases = Case::all();
    let total = cases.len();
    let (mut passed, mut bound) = (0, 0);
    let (mut refused, mut failed) = (Vec::new(), Vec::new());
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    for case in cases {
        match case.outcome() {
            Outcome::NotOurs(operators) => {
                for operator in operators {
                    *missing.entry(operator).or_default() += 1;
                }
            }
            Outcome::Passed { bound: late } => {
                passed += 1;
                bound += usize::from(late);
            }
            Outcome::Refused(why) => refused.push((case.name, why)),
            Outcome::Failed(why) => failed.push((case.name, why)),
        }
    }
    let ours = passed + refused.len() + failed.len();
    println!("{total} tests, {ours} have only operators of the table");
    println!("passed   {passed} ({bound} of them with integers and small inputs known at load)");
    println!("refused  {}", refused.len());
    println!("failed   {}", failed.len());
    for (name, why) in &failed {
        println!("  {name}: {why}");
    }
    let unlisted = refusals::unlisted(&refused);
    for line in &unlisted {
        println!("  {line}");
    }
    if std::env::var_os("BACKEND_MISSING").is_some() {
        println!("operators that are not in the table, and in how many tests: {missing:?}");
    }
    assert!(failed.is_empty(), "{} tests fail", failed.len());
    assert!(unlisted.is_empty(), "refusals.toml and the refusals differ:\n{}", unlisted.join("\n"));
    assert!(passed >= LEAST_PASSED, "only {passed} pass");
}

#[test]
fn every_file_of_the_fuzzers_seeds_is_refused_or_runs() {
    let mut ran = 0;
    for (path, bytes) in seeds::committed() {
        let reached = model::attempt(&bytes);
        println!("{reached:?} {}", path.display());
        ran += usize::from(reached == model::Reached::Ran);
    }
    assert!(ran >= seeds::all().len(), "only {ran} run");
}

#[test]
#[ignore = "writes fuzz/seeds/model; run by hand when the seeds change"]
fn the_fuzzers_seeds_are_written() {
    for (name, bytes) in seeds::all() {
        trainer::durable::write(&seeds::folder().join(name), &bytes).unwrap();
    }
}

#[test]
fn a_hostile_model_is_refused_or_runs_but_never_ends_the_process() {
    let mut random = Random::new(11);
    let (mut loaded, mut panics) = (0, Vec::new());
    for case in Case::all() {
        for _ in 0..DAMAGED {
            match case.run_damaged(&mut random) {
                Ok(loads) => loaded += usize::from(loads),
                Err(_) => panics.push(case.name.clone()),
            }
        }
    }
    println!("{loaded} damaged models load all the same, and run");
    assert!(panics.is_empty(), "{panics:?}");
    assert!(loaded > 1000, "most damage is caught so early that this test says little: {loaded}");
}
