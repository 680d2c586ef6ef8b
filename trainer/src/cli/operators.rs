//! `trainer operators`

use clap::Args;
use fleetloop_observe::output::Output;
use serde::Serialize;

use crate::ops;

#[derive(Debug, Args)]
pub struct Operators {}

#[derive(Debug, Serialize)]
struct Known {
    operator: &'static str,
    from_operator_set: i64,
    to_operator_set: i64,
}

impl Operators {
    pub fn run(&self, output: Output) -> anyhow::Result<()> {
        let mut known: Vec<Known> = ops::table()
            .map(|operator| Known {
                operator: operator.name,
                from_operator_set: *operator.opsets.start(),
                to_operator_set: *operator.opsets.end(),
            })
            .collect();
        known.sort_by_key(|k| k.operator);
        output.print(&known, |_| {
            let line = |k: &Known| {
                format!("{:26} {} to {}", k.operator, k.from_operator_set, k.to_operator_set)
            };
            let count = known.len();
            let last =
                format!("{count} operators, with the operator sets whose meaning is honoured");
            known.iter().map(line).chain([last]).collect::<Vec<_>>().join("\n")
        })
    }
}
