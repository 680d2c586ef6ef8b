//! The equation of `Einsum`: what every axis of the operands and of the output is called.
//!
//! Dimensions of an ellipsis get labels of their own, counted from the last.

use super::bounded;
use crate::graph::Fact;

/// The most dimensions of one operand.
const MAX_RANK: usize = 64;

/// The name of an axis: a letter, or a dimension of the ellipsis counted from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// An equation for operands of known shapes.
#[derive(Debug)]
pub struct Equation {
    /// The labels of each operand's axes.
    pub operands: Vec<Vec<Label>>,
    pub output: Vec<Label>,
    /// The size of every label.
    sizes: Vec<(Label, usize)>,
}

/// The labels of a term whose ellipsis stands for that many dimensions.
fn labels(term: &str, ellipsis: usize) -> Result<Vec<Label>, String> {
    let mut labels = Vec::new();
    let mut rest = term;
    while let Some(letter) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("...") {
            labels.extend((0..ellipsis).rev().map(Label::Ellipsis));
            rest = behind;
        } else if letter.is_ascii_alphabetic() {
            labels.push(Label::Letter(letter));
            rest = &rest[1..];
        } else {
            return Err(format!("the term '{term}' is not understood"));
        }
    }
    Ok(labels)
}

/// How many dimensions the ellipsis of a term stands for.
fn ellipsis(term: &str, x: &Fact) -> Result<usize, String> {
    let letters = term.chars().filter(char::is_ascii_alphabetic).count();
    let misfit = || format!("the term '{term}' does not fit an operand of shape {x}");
    match (term.matches("...").count(), x.rank().checked_sub(letters)) {
        (0, Some(0)) => Ok(0),
        (1, Some(rest)) if x.rank() <= MAX_RANK => Ok(rest),
        _ => Err(misfit()),
    }
}

impl Equation {
    pub fn new(text: &str, shapes: &[&Fact]) -> Result<Self, String> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != shapes.len() || shapes.iter().any(|x| x.rank() > MAX_RANK) {
            return Err(format!("the equation '{text}' is not for {} operands", shapes.len()));
        }
        let mut equation = Self { operands: Vec::new(), output: Vec::new(), sizes: Vec::new() };
        let mut widest = 0;
        for (term, x) in terms.iter().zip(shapes) {
            let ellipsis = ellipsis(term, x)?;
            widest = widest.max(ellipsis);
            let labels = labels(term, ellipsis)?;
            for (label, size) in labels.iter().zip(&x.dims) {
                equation.meet(*label, *size)?;
            }
            equation.operands.push(labels);
        }
        equation.output = match right {
            Some(term) => labels(term, widest)?,
            None => equation.implied(widest),
        };
        let mut sorted = equation.output.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let known = |label: &Label| equation.sizes.iter().any(|(l, _)| l == label);
        if sorted.len() != equation.output.len() || !sorted.iter().all(known) {
            return Err(format!("the output of the equation '{text}' is not understood"));
        }
        Ok(equation)
    }

    /// A label stands for an axis of that size.
    fn meet(&mut self, label: Label, size: usize) -> Result<(), String> {
        match self.sizes.iter_mut().find(|(l, _)| *l == label) {
            None => self.sizes.push((label, size)),
            Some((_, known)) if *known == 1 => *known = size,
            Some((_, known)) if size != 1 && *known != size => {
                return Err(format!("{label:?} stands for {known} and {size}"));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The output that is not written down: the ellipsis and the letters that occur once, sorted.
    fn implied(&self, ellipsis: usize) -> Vec<Label> {
        let all: Vec<Label> = self.operands.iter().flatten().copied().collect();
        let once = |label: &Label| all.iter().filter(|l| *l == label).count() == 1;
        let mut letters: Vec<Label> = all
            .iter()
            .filter(|label| matches!(label, Label::Letter(_)) && once(label))
            .copied()
            .collect();
        letters.sort_unstable();
        (0..ellipsis).rev().map(Label::Ellipsis).chain(letters).collect()
    }

    pub fn size(&self, label: Label) -> usize {
        self.sizes.iter().find(|(l, _)| *l == label).map_or(1, |(_, size)| *size)
    }

    pub fn shape(&self, labels: &[Label]) -> Vec<usize> {
        labels.iter().map(|l| self.size(*l)).collect()
    }

    /// The labels that are still needed once operands up to `last` have been multiplied.
    pub fn needed(&self, last: usize) -> Vec<Label> {
        let later = self.operands.iter().skip(last + 1).flatten();
        self.output.iter().chain(later).copied().collect()
    }

    /// Refuses products that are too large on the way; labels repeated in a term have to agree.
    pub fn check(&self, shapes: &[&Fact]) -> Result<(), String> {
        for (labels, x) in self.operands.iter().zip(shapes) {
            for (place, label) in labels.iter().enumerate() {
                let first = labels.iter().position(|l| l == label).unwrap_or(place);
                if x.dims[first] != x.dims[place] {
                    return Err(format!("{label:?} stands for axes of two sizes of {x}"));
                }
            }
        }
        let mut so_far: Vec<Label> = Vec::new();
        for (place, labels) in self.operands.iter().enumerate() {
            let needed = self.needed(place);
            let all = so_far.iter().chain(labels.iter().filter(|l| !so_far.contains(l)));
            let mut all: Vec<Label> = all.filter(|l| needed.contains(l)).copied().collect();
            all.sort_unstable();
            all.dedup();
            bounded(&self.shape(&all))?;
            so_far = all;
        }
        Ok(())
    }
}
