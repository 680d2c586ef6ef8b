//! Arrays at the command line: what `trainer train` and `trainer eval` do with an `.npz` file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::show;
use crate::arrays::Arrays;
use crate::arrays::judge::{Figures, Judgement, Trivial};
use crate::record::JudgedBy;
use crate::train::Loss;

/// Arrays to learn from and to judge by.
#[derive(Debug, Args)]
pub struct Data {
    /// Learn from arrays instead of a dataset: a NumPy .npz file with x (samples first), y (one
    /// integer a sample for classes, or numbers to reach; left out to give the input back) and,
    /// if wanted, group. The model gets the numbers as they are. Writes model.onnx and
    /// run-record.json, but no bundle: bundles hold classifiers of pictures.
    #[arg(long, value_name = "FILE.npz", conflicts_with_all = ["dataset", "name", "version", "input"])]
    pub arrays: Option<PathBuf>,
    /// Judge by the arrays in this file; if not given, by a share of --arrays that is not learned
    /// from.
    #[arg(long, value_name = "FILE.npz", requires = "arrays", conflicts_with = "eval_share")]
    eval: Option<PathBuf>,
    /// That share; which samples it is follows from their content. Where samples have groups, whole groups
    /// are held out, about so many samples.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share)]
    pub eval_share: f64,
}

impl Data {
    /// What is learned from, what is judged by, and how the latter was chosen.
    pub fn read(&self, path: &Path) -> anyhow::Result<(Arrays, Arrays, JudgedBy)> {
        let arrays = open(path)?;
        if let Some(path) = &self.eval {
            let judging = open(path)?;
            let judged_by = JudgedBy::File(judging.digest);
            return Ok((arrays, judging, judged_by));
        }
        if arrays.groups().names().len() > 1 {
            if let Some((learning, judging, groups)) = arrays.held_out_groups(self.eval_share) {
                return Ok((learning, judging, JudgedBy::Groups(groups)));
            }
            tracing::warn!(
                "each class is in one group alone, so samples of one group are learned from and judged by; \
                 the figures are too good for what comes from elsewhere"
            );
        }
        let (learning, judging) = arrays.held_out(self.eval_share)?;
        Ok((learning, judging, JudgedBy::Share(self.eval_share)))
    }
}

/// Says which groups are held out.
pub fn say(judged_by: &JudgedBy) {
    if let JudgedBy::Groups(groups) = judged_by {
        show::held_out(Some(&groups.iter().cloned().collect()));
    }
}

/// Reads a file and says which one could not be.
pub fn open(path: &Path) -> anyhow::Result<Arrays> {
    Arrays::open(path).with_context(|| format!("cannot use {}", path.display()))
}

/// `0.2`.
fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| format!("'{text}' is no share above 0 and below 1"))
}

/// `cross-entropy`.
pub fn loss(text: &str) -> Result<Loss, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|e| e.to_string())
}

/// Figures as a small table.
pub fn table(title: &str, judgement: &Judgement) -> String {
    let overall = format!("{title:12} {}", line(&judgement.overall));
    let group = |(group, figures): (&String, &Figures)| format!("\n  {group:10} {}", line(figures));
    let groups: String = judgement.groups.iter().map(group).collect();
    let detail = judgement.classes.as_ref().map(|classes| classes.render(&[]));
    let detail = detail.map_or_else(String::new, |text| format!("\n{}", text.trim_end()));
    let trivial = judgement
        .trivial
        .as_ref()
        .map_or_else(String::new, |found| format!("\n{}", beside(&judgement.overall, found)));
    overall + &groups + &detail + &trivial
}

/// What no model at all would score, and whether the model is better.
fn beside(overall: &Figures, trivial: &Trivial) -> String {
    match trivial {
        Trivial::Mean { mae, rmse } => {
            let better = matches!(overall, Figures::Off { rmse: own, .. } if own < rmse);
            let verdict = if better { "" } else { "; THE MODEL IS NOT BETTER THAN THAT" };
            format!("always the mean would be off by {mae:.6}, root mean square {rmse:.6}{verdict}")
        }
        Trivial::Brightness { auc, brightness_auc, .. } if auc.is_some() => {
            let number = |value: &Option<f64>| value.unwrap_or_default();
            let (own, other) = (number(auc), number(brightness_auc));
            let verdict =
                if own > other { "" } else { "; THE MODEL DOES NOT BEAT MEAN BRIGHTNESS" };
            format!(
                "AUC of the anomaly score {own:.4}; the mean of a sample's values alone has {other:.4}{verdict}"
            )
        }
        Trivial::Brightness { flat, .. } => {
            let better = matches!(overall, Figures::Scores { mean, .. } if mean < flat);
            let verdict = if better { "" } else { "; THE MODEL DOES NOT BEAT MEAN BRIGHTNESS" };
            format!("each sample's own mean, given back everywhere, scores {flat:.6}{verdict}")
        }
    }
}

fn line(figures: &Figures) -> String {
    match figures {
        Figures::Right(counted) => {
            format!("accuracy {:.4}  ({} of {})", counted.share, counted.correct, counted.total)
        }
        Figures::Off { mae, rmse } => {
            format!("mean absolute error {mae:.6}, root mean square {rmse:.6}")
        }
        Figures::Scores { mean, p50, p95, p99, largest } => format!(
            "anomaly score mean {mean:.6}, percentiles 50: {p50:.6}, 95: {p95:.6}, 99: {p99:.6}, 100: {largest:.6}"
        ),
    }
}
