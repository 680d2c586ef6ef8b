//! A loss with its targets: from which value it is taken, whether everything fits, what it is for a
//! batch, and how many samples were right.

use burn::tensor::{Device, Tensor as Flat};
use fleetloop_models::bundle::OutputKind;

use super::loss::{self, argmax};
use super::{DataError, Loss, Recipe, Targets, TrainError, TrainingSet};
use crate::graph::{Fact, Graph, Tensor};
use crate::ops::tensor;

/// What the value is that a loss is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Scores or numbers.
    Plain,
    /// Scores of a yes or no each.
    Apart,
    /// Probabilities.
    Shares,
    /// Probabilities of a yes or no each.
    SharesApart,
}

/// A loss with its targets.
pub struct Objective<'a> {
    loss: Loss,
    form: Form,
    smoothing: f32,
    delta: f32,
    set: &'a TrainingSet,
    value: String,
}

impl<'a> Objective<'a> {
    /// The recipe's loss against the set's targets, at the value of the graph that it is taken
    /// from. A loss of classes is taken from the scores before a final softmax or sigmoid; where the
    /// answer has another order or number of elements than these, from the probabilities themselves.
    /// Any other loss is taken from the answer as it is.
    pub fn new(graph: &Graph, set: &'a TrainingSet, recipe: &Recipe) -> Self {
        let of_classes = matches!(recipe.loss, Loss::CrossEntropy | Loss::Binary);
        let (answer, scores) = (graph.answer(), graph.logits());
        let (value, form) = match graph.kind {
            _ if !of_classes => (answer, Form::Plain),
            OutputKind::Logits => (answer, Form::Plain),
            OutputKind::Softmax if scores != answer && recipe.loss == Loss::CrossEntropy => {
                (scores, Form::Plain)
            }
            OutputKind::Softmax => (answer, Form::Shares),
            OutputKind::Sigmoid if scores != answer => (scores, Form::Apart),
            OutputKind::Sigmoid => (answer, Form::SharesApart),
        };
        let (smoothing, delta) = (recipe.label_smoothing, recipe.huber_delta);
        Self { loss: recipe.loss, form, smoothing, delta, set, value }
    }

    /// The name of the value that the loss is taken from.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether loss, targets and that value fit together.
    ///
    /// # Errors
    /// [`TrainError::Objective`] names all three.
    pub fn check(&self, output: &Fact, batch: usize) -> Result<(), TrainError> {
        let why = match self.misfit(output, batch) {
            Some(why) => why,
            None => return Ok(self.check_binary()?),
        };
        Err(TrainError::Objective {
            loss: self.loss,
            targets: self.set.targets().to_string(),
            output: format!("{output} for a batch of {batch}"),
            why,
        })
    }

    fn misfit(&self, output: &Fact, batch: usize) -> Option<String> {
        let [first, per_sample @ ..] = output.dims.as_slice() else {
            return Some("the output has no batch".into());
        };
        if *first != batch {
            return Some("the output's first dimension is not the batch".into());
        }
        let want = |good: bool, why: &str| (!good).then(|| why.to_owned());
        match (self.loss, self.set.targets()) {
            (Loss::CrossEntropy, Targets::Classes { count, .. }) => want(
                same(per_sample, &[*count]),
                "one score a class is needed; choose a model with that many outputs",
            ),
            (Loss::Binary, Targets::Classes { count, .. }) => want(
                *count == 2 && per_sample.iter().product::<usize>() == 1,
                "two classes and a single output are needed; choose another model, or cross-entropy",
            ),
            (Loss::Binary | Loss::Mse | Loss::Mae | Loss::Huber, Targets::Values { shape, .. }) => {
                want(same(per_sample, shape), "both need one shape; choose a model that fits")
            }
            (Loss::Reconstruction, Targets::Input) => want(
                same(per_sample, self.set.shape()),
                "the output needs the input's shape; choose an autoencoder",
            ),
            (Loss::CrossEntropy, _) => Some("it wants classes; choose another loss".into()),
            (Loss::Binary, _) => Some("it wants two classes, or values of 0 and 1".into()),
            (Loss::Reconstruction, _) => Some("it wants data without targets".into()),
            _ => Some("it wants values; choose another loss".into()),
        }
    }

    /// Binary targets are 0 or 1, and both are there.
    fn check_binary(&self) -> Result<(), DataError> {
        let (Loss::Binary, Targets::Values { values, .. }) = (self.loss, self.set.targets()) else {
            return Ok(());
        };
        if let Some(place) = values.iter().position(|v| *v != 0.0 && *v != 1.0) {
            return Err(DataError::NotBinary {
                sample: place / (values.len() / self.set.len()),
                value: values[place].to_string(),
            });
        }
        let one_class = values.iter().all(|v| *v == values[0]);
        if one_class { Err(DataError::OneClass) } else { Ok(()) }
    }

    /// The mean loss of a batch, as one element: `output` is the checked value for these samples,
    /// `inputs` is what the graph was given.
    pub fn loss(
        &self,
        output: Tensor,
        samples: &[usize],
        inputs: Tensor,
        device: &Device,
    ) -> Flat<1> {
        let shape = tensor::dims(&output);
        let shape = match (self.loss, self.set.targets()) {
            // Behind the classes there may be dimensions of one.
            (Loss::CrossEntropy, Targets::Classes { count, .. }) => vec![samples.len(), *count],
            _ => shape,
        };
        let output = tensor::reshape(output, &shape);
        let target = match self.set.targets() {
            Targets::Input => tensor::reshape(inputs, &shape),
            targets => tensor::from_host(self.target(targets, samples), &shape, device),
        };
        match (self.loss, self.form) {
            (Loss::CrossEntropy, Form::Plain) => loss::cross_entropy(output, target),
            (Loss::CrossEntropy, Form::Shares) => loss::cross_entropy_of(output, target),
            (Loss::CrossEntropy, Form::Apart) => loss::binary(output, target),
            (Loss::CrossEntropy, Form::SharesApart) => loss::binary_of(output, target),
            (Loss::Binary, Form::Plain | Form::Apart) => loss::binary(output, target),
            (Loss::Binary, Form::Shares | Form::SharesApart) => loss::binary_of(output, target),
            (other, _) => self.distance(other, output, target),
        }
    }

    fn distance(&self, loss: Loss, output: Tensor, target: Tensor) -> Flat<1> {
        match loss {
            Loss::Mae => loss::mae(output, target),
            Loss::Huber => loss::huber(output, target, self.delta),
            _ => loss::mse(output, target),
        }
    }

    fn target(&self, targets: &Targets, samples: &[usize]) -> Vec<f32> {
        match targets {
            Targets::Classes { labels, count } => {
                let labels: Vec<usize> = samples.iter().map(|s| labels[*s]).collect();
                if self.loss == Loss::CrossEntropy {
                    return loss::smoothed(&labels, *count, self.smoothing);
                }
                labels.into_iter().map(|label| label as f32).collect()
            }
            Targets::Values { values, .. } => {
                let per_sample = values.len() / self.set.len();
                let of = |sample: &usize| &values[sample * per_sample..(sample + 1) * per_sample];
                samples.iter().flat_map(of).copied().collect()
            }
            Targets::Input => Vec::new(),
        }
    }

    /// How many of the samples were right; none for losses without right and wrong. `output` is
    /// the checked value for these samples.
    pub fn right(&self, output: &[f32], samples: &[usize]) -> Option<usize> {
        let rows = || output.chunks_exact((output.len() / samples.len().max(1)).max(1));
        match (self.loss, self.set.targets()) {
            (Loss::CrossEntropy, Targets::Classes { labels, .. }) => {
                let right = rows().zip(samples).filter(|(row, s)| argmax(row) == labels[**s]);
                Some(right.count())
            }
            (Loss::Binary, targets) => {
                let target = self.target(targets, samples);
                let shares = matches!(self.form, Form::Shares | Form::SharesApart);
                let threshold = if shares { 0.5 } else { 0.0 };
                let agree = |row: &[f32], target: &[f32]| {
                    row.iter().zip(target).all(|(z, t)| (*z > threshold) == (*t > 0.5))
                };
                let per_sample = (target.len() / samples.len().max(1)).max(1);
                let pairs = rows().zip(target.chunks_exact(per_sample));
                Some(pairs.filter(|(row, target)| agree(row, target)).count())
            }
            _ => None,
        }
    }
}

/// Whether two shapes are the same but for dimensions of one.
fn same(a: &[usize], b: &[usize]) -> bool {
    let long = |shape: &&[usize]| shape.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
    long(&a) == long(&b)
}

#[cfg(test)]
mod tests {
    use super::super::Groups;
    use super::*;
    use crate::onnx::{GraphWriter, Model};

    /// A graph from two values through `last` to `outputs`.
    fn graph(outputs: usize, last: &str) -> Graph {
        let bytes = GraphWriter::new("case")
            .input("x", &[None, Some(2)])
            .output("y", &[None, Some(outputs)])
            .floats("w", &[2, outputs], &vec![0.5; 2 * outputs])
            .node("MatMul", &["x", "w"], &["z"], vec![])
            .node(last, &["z"], &["y"], vec![])
            .finish()
            .unwrap();
        let model = Model::parse(bytes).unwrap();
        Graph::load(model, &[Fact::float(vec![2, 2])], &Device::flex()).unwrap()
    }

    fn set(targets: Targets) -> TrainingSet {
        TrainingSet::new(vec![2], vec![0.0, 1.0, 2.0, 3.0], targets, Groups::one("g", 2)).unwrap()
    }

    fn classes(count: usize) -> Targets {
        Targets::Classes { labels: vec![0, 1], count }
    }

    fn values(shape: &[usize], values: &[f32]) -> Targets {
        Targets::Values { shape: shape.to_vec(), values: values.to_vec() }
    }

    fn recipe(loss: Loss) -> Recipe {
        Recipe { loss, ..Recipe::starter() }
    }

    #[test]
    fn the_loss_is_taken_from_the_scores() {
        let (classes, input) = (set(classes(2)), set(Targets::Input));
        let value = |last: &str, loss, set| {
            Objective::new(&graph(2, last), set, &recipe(loss)).value().to_owned()
        };
        assert_eq!(value("Softmax", Loss::CrossEntropy, &classes), "z");
        // The softmax of logarithms of probabilities is these probabilities.
        assert_eq!(value("LogSoftmax", Loss::CrossEntropy, &classes), "y");
        assert_eq!(value("Sigmoid", Loss::Binary, &classes), "z");
        assert_eq!(value("Sigmoid", Loss::CrossEntropy, &classes), "z");
        assert_eq!(value("Relu", Loss::Binary, &classes), "y");
        assert_eq!(value("Sigmoid", Loss::Mse, &input), "y");
    }

    #[test]
    fn what_does_not_fit_names_loss_targets_and_output() {
        let (one, two) = (graph(1, "Relu"), graph(2, "Relu"));
        for (loss, targets, graph, words) in [
            (Loss::CrossEntropy, classes(3), &two, ["one of 3 classes", "[2, 2]"]),
            (Loss::CrossEntropy, Targets::Input, &two, ["the input itself", "wants classes"]),
            (Loss::Binary, classes(2), &two, ["one of 2 classes", "single output"]),
            (Loss::Binary, Targets::Input, &one, ["the input itself", "0 and 1"]),
            (Loss::Mse, classes(2), &two, ["one of 2 classes", "wants values"]),
            (Loss::Huber, values(&[3], &[0.0; 6]), &two, ["shape [3]", "[2, 2]"]),
            (Loss::Reconstruction, Targets::Input, &one, ["[2, 1]", "input's shape"]),
            (Loss::Reconstruction, classes(2), &two, ["classes", "without targets"]),
        ] {
            let set = set(targets);
            let objective = Objective::new(graph, &set, &recipe(loss));
            let outputs = if std::ptr::eq(graph, &one) { 1 } else { 2 };
            let error = objective.check(&Fact::float(vec![2, outputs]), 2).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("the loss {loss}")), "{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }

    #[test]
    fn binary_targets_are_zero_and_one() {
        let one = graph(1, "Sigmoid");
        let check = |targets| {
            let set = set(targets);
            let objective = Objective::new(&one, &set, &recipe(Loss::Binary));
            objective.check(&Fact::float(vec![2, 1]), 2)
        };
        assert!(check(values(&[], &[0.0, 1.0])).is_ok());
        assert!(check(classes(2)).is_ok());
        let error = check(values(&[1], &[0.0, 0.5])).unwrap_err();
        let TrainError::Data(data) = error else { panic!("{error}") };
        assert_eq!(data, DataError::NotBinary { sample: 1, value: "0.5".into() });
        let error = check(values(&[1], &[1.0, 1.0])).unwrap_err();
        assert!(matches!(error, TrainError::Data(DataError::OneClass)), "{error}");
    }

    #[test]
    fn right_and_wrong_are_counted_where_they_exist() {
        let two = graph(2, "Relu");
        let right = |loss, targets, output: &[f32], samples: &[usize]| {
            let set = set(targets);
            Objective::new(&two, &set, &recipe(loss)).right(output, samples)
        };
        let scores = [0.9, 0.1, 0.3, 0.2];
        assert_eq!(right(Loss::CrossEntropy, classes(2), &scores, &[0, 1]), Some(1));
        assert_eq!(right(Loss::CrossEntropy, classes(2), &scores, &[1, 0]), Some(1));
        assert_eq!(right(Loss::Binary, classes(2), &[-1.0, 2.0], &[0, 1]), Some(2));
        let both = values(&[2], &[0.0, 1.0, 1.0, 1.0]);
        assert_eq!(right(Loss::Binary, both, &[-1.0, 2.0, 3.0, -1.0], &[0, 1]), Some(1));
        assert_eq!(right(Loss::Mse, values(&[2], &[0.0; 4]), &scores, &[0, 1]), None);
    }
}
