//! The recipe: everything a person may choose about a training run.
//!
//! TOML; every key has a default, an unknown key is an error, and all errors are reported together.
//! There are two sets of defaults. A first model ([`Recipe::starter`]) sees its pictures as they
//! are. A model that is retrained ([`Recipe::retraining`]) is so because its world changed: the new
//! labels get half of the draws, and most pictures are moved and lit a little differently, for a few
//! hundred labels do not show every change there will be.
//!
//! ```toml
//! epochs = 18
//! batch_size = 64
//! loss = "cross-entropy"     # or binary, mse, mae, huber, reconstruction
//! label_smoothing = 0.0      # of cross-entropy
//! huber_delta = 1.0          # of huber: where the square ends and the line begins
//! optimizer = "adamw"        # or sgd
//! momentum = 0.9             # of sgd
//! nesterov = false           # of sgd
//! learning_rate = 0.002      # the peak, reached after the warm-up
//! weight_decay = 0.01        # decoupled; weights only, biases and scales never decay
//! warmup_epochs = 1.0        # at most half of the epochs if not given
//! freeze = []                # names such as ["backbone.*"], { first = 3 } layers, "all-but-head"
//! [group_share]              # share of an epoch's draws that a group gets at least
//! fleet = 0.5
//! [augment]                  # of pictures
//! probability = 0.7          # share of the pictures that are changed at all
//! shift = 0.07               # of the side
//! flip = false
//! brightness = [0.7, 1.4]
//! [early_stopping]           # off unless this table is there
//! patience = 5               # epochs without a better validation loss
//! min_delta = 0.0            # by how much a better one is better
//! validation_share = 0.1     # of the samples, by their content; never the gate's
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Algorithm, Augment, EarlyStopping, Freeze, Loss};

/// What a person may choose about a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Passes over as many samples as the data has.
    pub epochs: u32,
    /// Samples a step.
    pub batch_size: usize,
    /// The learning rate at its peak.
    pub learning_rate: f64,
    /// Decoupled weight decay, for weights only.
    pub weight_decay: f64,
    /// What training makes small.
    pub loss: Loss,
    /// Where Huber's loss turns from a square into a line.
    pub huber_delta: f32,
    /// How gradients move the parameters.
    pub optimizer: Algorithm,
    /// The share of the last direction that SGD keeps.
    pub momentum: f64,
    /// Whether SGD looks ahead along its momentum (Sutskever et al. 2013).
    pub nesterov: bool,
    /// Which parameters keep the base's values.
    pub freeze: Freeze,
    /// Epochs in which the learning rate rises from zero; then it falls along a cosine.
    pub warmup_epochs: f64,
    /// Share of the target spread over all classes, 0 to 1.
    pub label_smoothing: f32,
    /// The least share of an epoch's draws that a group gets, however few its samples are.
    pub group_share: BTreeMap<String, f64>,
    /// Random changes of the pictures.
    pub augment: Augment,
    /// When to end before the last epoch; never if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
}

/// Why a recipe is not one.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// The text is no TOML of that form.
    #[error("cannot read recipe")]
    Toml(#[source] Box<toml::de::Error>),
    /// Values that make no sense, all of them.
    #[error("cannot use recipe: {}", .0.join("; "))]
    Values(Vec<String>),
}

impl Recipe {
    /// The defaults for a first model.
    pub fn starter() -> Self {
        Self {
            epochs: 10,
            batch_size: 64,
            learning_rate: 2e-3,
            weight_decay: 1e-2,
            loss: Loss::default(),
            huber_delta: 1.0,
            optimizer: Algorithm::default(),
            momentum: 0.9,
            nesterov: false,
            freeze: Freeze::default(),
            warmup_epochs: 1.0,
            label_smoothing: 0.0,
            group_share: BTreeMap::new(),
            augment: Augment::default(),
            early_stopping: None,
        }
    }

    /// The defaults for a model that is retrained.
    pub fn retraining() -> Self {
        Self {
            epochs: 18,
            group_share: BTreeMap::from([("fleet".to_owned(), 0.5)]),
            augment: Augment { probability: 0.7, shift: 0.07, flip: false, brightness: [0.7, 1.4] },
            ..Self::starter()
        }
    }

    /// Reads and checks a recipe; what the text leaves out is taken from `defaults`. A warm-up that
    /// is left out takes at most half of the epochs.
    ///
    /// # Errors
    /// [`RecipeError`]: what does not parse, or every value that makes no sense.
    pub fn parse(text: &str, defaults: &Self) -> Result<Self, RecipeError> {
        let given: toml::Table =
            toml::from_str(text).map_err(|e| RecipeError::Toml(Box::new(e)))?;
        let mut whole = toml::Table::try_from(defaults)
            .map_err(|e| RecipeError::Values(vec![e.to_string()]))?;
        let warmup_is_given = given.contains_key("warmup_epochs");
        merge(&mut whole, given);
        let mut recipe: Self = whole.try_into().map_err(|e| RecipeError::Toml(Box::new(e)))?;
        if !warmup_is_given {
            recipe.warmup_epochs = recipe.warmup_epochs.min(f64::from(recipe.epochs) / 2.0);
        }
        let errors = recipe.errors();
        if errors.is_empty() { Ok(recipe) } else { Err(RecipeError::Values(errors)) }
    }

    fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let mut want = |good: bool, what: &str| {
            if !good {
                errors.push(what.to_owned());
            }
        };
        self.check_course(&mut want);
        self.check_choices(&mut want);
        self.check_data(&mut want);
        errors
    }

    /// How long and how fast.
    fn check_course(&self, want: &mut impl FnMut(bool, &str)) {
        want((1..=10_000).contains(&self.epochs), "epochs has to be 1 to 10000");
        want((1..=65_536).contains(&self.batch_size), "batch_size has to be 1 to 65536");
        want(
            self.learning_rate > 0.0 && self.learning_rate <= 10.0,
            "learning_rate has to be above 0 and at most 10",
        );
        want((0.0..=1.0).contains(&self.weight_decay), "weight_decay has to be 0 to 1");
        want(
            self.warmup_epochs >= 0.0 && self.warmup_epochs < f64::from(self.epochs),
            "warmup_epochs has to be at least 0 and below epochs",
        );
        want((0.0..1.0).contains(&self.momentum), "momentum has to be at least 0 and below 1");
        let Some(stopping) = &self.early_stopping else { return };
        want(stopping.patience >= 1, "early_stopping.patience has to be at least 1");
        want(
            stopping.min_delta >= 0.0 && stopping.min_delta.is_finite(),
            "early_stopping.min_delta has to be at least 0",
        );
        want(
            stopping.validation_share > 0.0 && stopping.validation_share <= 0.5,
            "early_stopping.validation_share has to be above 0 and at most 0.5",
        );
    }

    /// What only some losses and optimisers know.
    fn check_choices(&self, want: &mut impl FnMut(bool, &str)) {
        want(
            (0.0..1.0).contains(&self.label_smoothing),
            "label_smoothing has to be at least 0 and below 1",
        );
        want(
            self.label_smoothing == 0.0 || self.loss == Loss::CrossEntropy,
            "label_smoothing is for the loss cross-entropy alone",
        );
        want(
            self.huber_delta > 0.0 && self.huber_delta.is_finite(),
            "huber_delta has to be above 0",
        );
        want(
            !self.nesterov || (self.optimizer == Algorithm::Sgd && self.momentum > 0.0),
            "nesterov is for the optimizer sgd with a momentum above 0",
        );
        let named = match &self.freeze {
            Freeze::Names(patterns) => patterns.iter().all(|p| !p.is_empty()),
            Freeze::Depth(depth) => depth.first >= 1,
            Freeze::Part(_) => true,
        };
        want(named, "freeze wants names that are not empty, or first = 1 or more");
    }

    /// What is drawn and how it is changed.
    fn check_data(&self, want: &mut impl FnMut(bool, &str)) {
        want(
            self.group_share.values().all(|s| (0.0..=1.0).contains(s)),
            "each group_share has to be 0 to 1",
        );
        want(
            self.group_share.values().sum::<f64>() <= 1.0,
            "the group shares add up to more than 1",
        );
        want(
            (0.0..=1.0).contains(&self.augment.probability),
            "augment.probability has to be 0 to 1",
        );
        want((0.0..=0.5).contains(&self.augment.shift), "augment.shift has to be 0 to 0.5");
        let [low, high] = self.augment.brightness;
        want(
            low > 0.0 && low <= high && high <= 10.0,
            "brightness has to be two rising factors above 0 and at most 10",
        );
    }
}

/// Lays `over` on `under`, table by table.
fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::{Depth, Part};
    use super::*;

    fn parse(text: &str) -> Result<Recipe, RecipeError> {
        Recipe::parse(text, &Recipe::retraining())
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        assert_eq!(parse("").unwrap(), Recipe::retraining());
        let recipe =
            parse("epochs = 3\n[augment]\nflip = true\n[group_share]\nline = 0.1").unwrap();
        assert_eq!(recipe.epochs, 3);
        assert_eq!(recipe.augment, Augment { flip: true, ..Recipe::retraining().augment });
        assert_eq!(recipe.group_share.len(), 2);
        assert_eq!(parse(&toml::to_string(&recipe).unwrap()).unwrap(), recipe);
    }

    #[test]
    fn the_recipe_in_this_files_header_is_the_default_with_early_stopping() {
        let header = include_str!("recipe.rs").lines().map_while(|line| line.strip_prefix("//!"));
        let example = header.skip_while(|line| *line != " ```toml").skip(1);
        let example: Vec<_> = example.take_while(|line| *line != " ```").collect();
        let wanted =
            Recipe { early_stopping: Some(EarlyStopping::default()), ..Recipe::retraining() };
        let read = Recipe::parse(&example.join("\n"), &Recipe::starter()).unwrap();
        assert_eq!(read, wanted);
        assert_eq!(
            example.len(),
            toml::to_string(&wanted).unwrap().lines().filter(|l| !l.is_empty()).count()
        );
    }

    #[test]
    fn a_warm_up_that_is_left_out_leaves_epochs_to_learn() {
        assert_eq!(parse("epochs = 1").unwrap().warmup_epochs, 0.5);
        assert_eq!(parse("epochs = 2").unwrap().warmup_epochs, 1.0);
        let text = parse("epochs = 1\nwarmup_epochs = 1.0").unwrap_err().to_string();
        assert!(text.contains("warmup_epochs"), "{text}");
    }

    #[test]
    fn unknown_keys_are_errors() {
        assert!(matches!(parse("epoch = 3"), Err(RecipeError::Toml(_))));
        assert!(matches!(parse("[augment]\nshfit = 3"), Err(RecipeError::Toml(_))));
    }

    #[test]
    fn all_wrong_values_are_reported_together() {
        let text = parse("epochs = 0\nlearning_rate = nan\n[augment]\nbrightness = [2.0, 1.0]")
            .unwrap_err()
            .to_string();
        for word in ["epochs", "learning_rate", "brightness"] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn every_choice_is_read_and_written_back() {
        let recipe = parse(
            r#"
            loss = "huber"
            huber_delta = 0.5
            optimizer = "sgd"
            nesterov = true
            freeze = { first = 2 }
            early_stopping = { patience = 3 }
            "#,
        )
        .unwrap();
        assert_eq!((recipe.loss, recipe.optimizer), (Loss::Huber, Algorithm::Sgd));
        assert_eq!(recipe.freeze, Freeze::Depth(Depth { first: 2 }));
        let stopping = recipe.early_stopping.clone().unwrap();
        assert_eq!(stopping, EarlyStopping { patience: 3, ..EarlyStopping::default() });
        assert_eq!(parse(&toml::to_string(&recipe).unwrap()).unwrap(), recipe);
        let json = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
        assert_eq!(parse("freeze = [\"a.*\"]").unwrap().freeze, Freeze::Names(vec!["a.*".into()]));
        let head = parse("freeze = \"all-but-head\"").unwrap().freeze;
        assert_eq!(head, Freeze::Part(Part::AllButHead));
    }

    #[test]
    fn choices_that_contradict_each_other_are_errors() {
        for (text, word) in [
            ("loss = \"mse\"\nlabel_smoothing = 0.1", "label_smoothing"),
            ("nesterov = true", "nesterov"),
            ("optimizer = \"sgd\"\nmomentum = 0.0\nnesterov = true", "nesterov"),
            ("momentum = 1.0", "momentum"),
            ("freeze = [\"\"]", "freeze"),
            ("[early_stopping]\npatience = 0", "patience"),
            ("[early_stopping]\nvalidation_share = 0.6", "validation_share"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(&error, RecipeError::Values(v) if v.len() == 1), "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        let error = parse("freeze = \"all\"").unwrap_err();
        let RecipeError::Toml(source) = &error else { panic!("{error}") };
        assert!(source.to_string().contains("all-but-head"), "{source}");
    }
}
