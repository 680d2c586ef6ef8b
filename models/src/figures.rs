//! How good a classifier is, from what it made of labelled samples, and what no model at all would score.
//!
//! | figure | what |
//! |---|---|
//! | accuracy | the share whose most probable class is the label |
//! | always the largest class | the accuracy of answering the most frequent label whatever is shown |
//! | recall of a class | of its samples, the share that was recognised |
//! | precision of a class | of the samples taken for it, the share that is of it |
//! | AUC of a class | the chance that a sample of it gets a higher score for it than one of another class (Fawcett 2006, equation of section 7; equal scores count half) |
//! | AUC | the mean over the classes that have one |
//!
//! A class without samples has no recall, and without samples of others no AUC.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The most classes whose confusion matrix is printed.
const PRINTED: usize = 20;

/// The figures over some samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Samples in all.
    pub samples: usize,
    /// Samples that were right.
    pub correct: usize,
    /// Their share; 0 when there is none.
    pub accuracy: f64,
    /// The accuracy of always answering the most frequent label.
    pub largest_class: f64,
    /// The mean AUC of the classes.
    pub auc: Option<f64>,
    /// By class, in the order of the labels.
    pub classes: Vec<ClassFigures>,
    /// How many samples of each class (row) were taken for each class (column).
    pub confusion: Vec<Vec<usize>>,
}

/// The figures of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// Samples of it.
    pub samples: usize,
    /// Of them, the share that was recognised.
    pub recall: Option<f64>,
    /// Of the samples taken for it, the share that is of it.
    pub precision: Option<f64>,
    /// How well its score tells it from the others.
    pub auc: Option<f64>,
}

impl Figures {
    /// The figures over samples, each with its label and a score for each of `classes`. Samples whose
    /// label is none of them count as wrong.
    pub fn of<'a>(classes: usize, samples: impl IntoIterator<Item = (usize, &'a [f32])>) -> Self {
        let mut confusion = vec![vec![0; classes]; classes];
        let mut scores: Vec<Vec<(f32, bool)>> = vec![Vec::new(); classes];
        let (mut total, mut correct) = (0, 0);
        for (label, row) in samples {
            total += 1;
            for (class, (score, of)) in row.iter().zip(&mut scores).enumerate() {
                of.push((*score, class == label));
            }
            let best = best(row);
            correct += usize::from(best == Some(label));
            if let (Some(best), true) = (best.filter(|best| *best < classes), label < classes) {
                confusion[label][best] += 1;
            }
        }
        let largest = confusion.iter().map(|row| row.iter().sum::<usize>()).max().unwrap_or(0);
        let classes: Vec<ClassFigures> = (0..classes)
            .map(|class| {
                let samples = confusion[class].iter().sum();
                let taken: usize = confusion.iter().map(|row| row[class]).sum();
                let right = confusion[class][class];
                ClassFigures {
                    samples,
                    recall: share(right, samples),
                    precision: share(right, taken),
                    auc: auc(&mut scores[class]),
                }
            })
            .collect();
        let known: Vec<f64> = classes.iter().filter_map(|class| class.auc).collect();
        Self {
            samples: total,
            correct,
            accuracy: share(correct, total).unwrap_or(0.0),
            largest_class: share(largest, total).unwrap_or(0.0),
            auc: (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64),
            classes,
            confusion,
        }
    }

    /// As text for people; `labels` name the classes.
    pub fn render(&self, labels: &[String]) -> String {
        let mut out = format!(
            "accuracy {:.4} ({} of {}), AUC {}; always the largest class would score {:.4}\n",
            self.accuracy,
            self.correct,
            self.samples,
            number(self.auc),
            self.largest_class
        );
        let name = |class: usize| labels.get(class).cloned().unwrap_or_else(|| class.to_string());
        let width = (0..self.classes.len()).map(|c| name(c).chars().count()).max().unwrap_or(0);
        let width = width.max("class".len());
        let _ = writeln!(out, "  {:width$}  samples  recall  precision  AUC", "class");
        for (class, figures) in self.classes.iter().enumerate() {
            let _ = writeln!(
                out,
                "  {:width$}  {:>7}  {:>6}  {:>9}  {}",
                name(class),
                figures.samples,
                number(figures.recall),
                number(figures.precision),
                number(figures.auc)
            );
        }
        if self.classes.len() > PRINTED {
            return out;
        }
        let cells = self.confusion.iter().flatten().map(|count| count.to_string().len());
        let cell =
            cells.max().unwrap_or(1).max((self.classes.len().max(1) - 1).to_string().len() + 1);
        let _ = write!(out, "  {:width$}  taken for", "");
        out.push('\n');
        let _ = write!(out, "  {:width$}  ", "is");
        for class in 0..self.classes.len() {
            let _ = write!(out, " {:>cell$}", format!("#{class}"));
        }
        out.push('\n');
        for (class, row) in self.confusion.iter().enumerate() {
            let _ = write!(out, "  {:width$}  ", name(class));
            for count in row {
                let _ = write!(out, " {count:>cell$}");
            }
            let _ = writeln!(out, "  #{class}");
        }
        out
    }
}

/// The place of the largest score, the first of equals.
fn best(row: &[f32]) -> Option<usize> {
    row.iter()
        .enumerate()
        .fold(None, |best: Option<(usize, f32)>, (class, score)| match best {
            Some((_, largest)) if largest >= *score => best,
            _ => Some((class, *score)),
        })
        .map(|(class, _)| class)
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

/// The chance that a positive sample scores higher than a negative one, equal scores counting half; none
/// without both. Sorts the samples.
pub fn auc(samples: &mut [(f32, bool)]) -> Option<f64> {
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = samples.iter().filter(|(_, positive)| *positive).count();
    let negatives = samples.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let (mut below, mut wins) = (0usize, 0.0);
    let mut rest = &samples[..];
    while let Some((score, _)) = rest.first() {
        let equal = rest.iter().take_while(|(other, _)| other == score).count().max(1);
        let (group, after) = rest.split_at(equal);
        let up = group.iter().filter(|(_, positive)| *positive).count();
        let down = equal - up;
        wins += up as f64 * (below as f64 + down as f64 / 2.0);
        below += down;
        rest = after;
    }
    Some(wins / (positives as f64 * negatives as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        let rows: [(usize, [f32; 2]); 5] =
            [(0, [0.9, 0.1]), (0, [0.6, 0.4]), (0, [0.3, 0.7]), (1, [0.2, 0.8]), (1, [0.7, 0.3])];
        let figures = Figures::of(2, rows.iter().map(|(label, row)| (*label, &row[..])));
        assert_eq!((figures.samples, figures.correct), (5, 3));
        assert_eq!((figures.accuracy, figures.largest_class), (0.6, 0.6));
        assert_eq!(figures.confusion, [[2, 1], [1, 1]]);
        let of = |class: usize| {
            let found = &figures.classes[class];
            (found.samples, found.recall.unwrap(), found.precision.unwrap(), found.auc.unwrap())
        };
        // Of the six pairs the first class wins 0.9 and 0.6 over 0.2, 0.3 over 0.2, 0.9 over 0.7.
        assert_eq!(of(0), (3, 2.0 / 3.0, 2.0 / 3.0, 4.0 / 6.0));
        assert_eq!(of(1), (2, 0.5, 0.5, 4.0 / 6.0));
        assert_eq!(figures.auc, Some(4.0 / 6.0));
        let text = figures.render(&["good".into(), "bad".into()]);
        assert!(text.contains("always the largest class would score 0.6000"), "{text}");
        assert!(text.contains("good") && text.contains("recall"), "{text}");
    }

    #[test]
    fn equal_scores_count_half_and_one_class_alone_has_no_auc() {
        assert_eq!(auc(&mut [(1.0, true), (1.0, false)]), Some(0.5));
        assert_eq!(auc(&mut [(2.0, true), (1.0, false), (2.0, false)]), Some(0.75));
        assert_eq!(auc(&mut [(1.0, true)]), None);
        let figures = Figures::of(3, [(1, &[0.0, 1.0, 0.0][..])]);
        assert_eq!((figures.auc, figures.classes[0].recall), (None, None));
        assert_eq!(figures.classes[1].recall, Some(1.0));
        assert!(Figures::of(0, []).render(&[]).contains("accuracy 0.0000"));
    }
}
