//! Labelling in the page: one picture, large, and a button for each class.
//!
//! Works without a script: each button posts a form and the answer leads to the next picture of the queue.
//! What was skipped is remembered in the address, the last [`SKIPPED`] of it; what was labelled last can be
//! taken back. A sample that is named in the address is shown whoever labelled it before, so a colleague is
//! corrected in the same way.

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::samples::Sample;
use serde::Deserialize;

use super::html;
use super::session::{SameOrigin, Visitor};
use crate::AppState;
use crate::api::error::Failure;
use crate::api::extract::Params;
use crate::api::labels::{QUEUE, next};
use crate::cli::{human, samples as words};
use crate::store::{labels, samples};

/// Skipped pictures that are remembered; an older one is asked for again.
const SKIPPED: usize = 50;

/// Keys that choose a class, in the order of the classes.
const KEYS: &[u8] = b"1234567890";

/// What the address says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    /// A certain sample instead of the next one.
    sample: Option<Digest>,
    /// What was skipped, separated by commas.
    #[serde(default)]
    skipped: String,
    /// What was labelled last.
    last: Option<Digest>,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "label.html")]
struct Page {
    host: String,
    who: String,
    waiting: u64,
    skipped: String,
    last: Option<Last>,
    item: Option<Item>,
}

/// What was labelled last, and can be taken back.
#[derive(Debug)]
struct Last {
    sample: String,
    short: String,
    label: String,
}

/// The sample in question.
#[derive(Debug)]
struct Item {
    sample: String,
    short: String,
    payload: String,
    device: String,
    stored: String,
    prediction: String,
    chosen: String,
    label: String,
    is_removed: bool,
    classes: Vec<Class>,
    /// What is skipped when this one is, too.
    skipped_too: String,
}

/// A button.
#[derive(Debug)]
struct Class {
    name: String,
    key: Option<char>,
    is_current: bool,
}

/// The digests of a list; what is none is left out, for an address can be cut off.
fn digests(text: &str) -> Vec<Digest> {
    let mut all: Vec<Digest> = text.split(',').filter_map(|digest| digest.parse().ok()).collect();
    let first = all.len().saturating_sub(SKIPPED);
    all.drain(..first);
    all
}

fn list(all: &[Digest]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Shows a sample to be labelled.
pub(super) async fn show(
    visitor: Option<Visitor>,
    State(state): State<AppState>,
    Params(query): Params<Query>,
) -> Result<Response, Failure> {
    let Some(visitor) = visitor else { return Ok(Redirect::to("/").into_response()) };
    let host = state.config.host().to_owned();
    let now = state.clock.now();
    let mut skipped = digests(&query.skipped);
    let page = state
        .store
        .read(move |connection| {
            let queue = next(connection, skipped.len() + 1)?;
            let sample = match query.sample {
                Some(digest) => Some(samples::get(connection, digest)?),
                None => queue.samples.into_iter().find(|one| !skipped.contains(&one.sample)),
            };
            let last = query.last.map(|digest| samples::get(connection, digest)).transpose()?;
            let skipped_now = list(&skipped);
            let item = sample.map(|sample| {
                skipped.push(sample.sample);
                item(&sample, &queue.labels, list(&digests(&list(&skipped))), now.0)
            });
            Ok(Page {
                host,
                who: visitor.name,
                waiting: queue.waiting,
                skipped: skipped_now,
                last: last.and_then(|sample| {
                    Some(Last {
                        sample: sample.sample.to_string(),
                        short: sample.sample.short(),
                        label: sample.label?,
                    })
                }),
                item,
            })
        })
        .await?;
    html(StatusCode::OK, page.render())
}

fn item(sample: &Sample, labels: &[String], skipped_too: String, now_ms: u64) -> Item {
    let classes = labels.iter().enumerate().map(|(at, name)| Class {
        name: name.clone(),
        key: KEYS.get(at).map(|key| char::from(*key)),
        is_current: sample.label.as_ref() == Some(name),
    });
    Item {
        sample: sample.sample.to_string(),
        short: sample.sample.short(),
        payload: sample.payload.to_string(),
        device: sample.id.as_ref().map_or_else(|| sample.group.clone(), |id| id.device.to_string()),
        stored: human::ago(sample.stored_at_ms, now_ms),
        prediction: sample.predictions.first().map_or("-".into(), |p| words::prediction(p, labels)),
        chosen: sample.selection.as_ref().map_or("-".into(), words::selection),
        label: words::label(sample),
        is_removed: sample.removed.is_some(),
        classes: classes.collect(),
        skipped_too,
    }
}

/// A button that was pressed.
#[derive(Debug, Deserialize)]
pub(super) struct Given {
    sample: Digest,
    label: String,
    #[serde(default)]
    skipped: String,
}

/// A label that is taken back.
#[derive(Debug, Deserialize)]
pub(super) struct Undo {
    sample: Digest,
    #[serde(default)]
    skipped: String,
}

fn understood<T>(form: Result<Form<T>, FormRejection>) -> Result<T, Failure> {
    form.map(|Form(form)| form).map_err(|error| {
        Failure::invalid(format!(
            "cannot label: the form is not the page's ({error}); go back and reload"
        ))
    })
}

fn login_first() -> Failure {
    Failure::unauthorized("cannot label: log in first")
}

/// Takes a label and leads to the next picture.
pub(super) async fn give(
    _same: SameOrigin,
    visitor: Option<Visitor>,
    State(state): State<AppState>,
    form: Result<Form<Given>, FormRejection>,
) -> Result<Response, Failure> {
    let visitor = visitor.ok_or_else(login_first)?;
    let Given { sample, label, skipped } = understood(form)?;
    let now = state.clock.now();
    state.store.write(move |tx| labels::give(tx, sample, &label, &visitor.name, now)).await?;
    let skipped = list(&digests(&skipped));
    Ok(Redirect::to(&format!("/label?skipped={skipped}&last={sample}")).into_response())
}

/// Takes the visitor's last label of a sample back and shows the sample again.
pub(super) async fn undo(
    _same: SameOrigin,
    visitor: Option<Visitor>,
    State(state): State<AppState>,
    form: Result<Form<Undo>, FormRejection>,
) -> Result<Response, Failure> {
    let visitor = visitor.ok_or_else(login_first)?;
    let Undo { sample, skipped } = understood(form)?;
    let now = state.clock.now();
    state.store.write(move |tx| labels::take_back(tx, sample, &visitor.name, now)).await?;
    let skipped = list(&digests(&skipped));
    Ok(Redirect::to(&format!("/label?skipped={skipped}&sample={sample}")).into_response())
}

/// The most that is asked of the queue covers all that can be skipped.
const _: () = assert!(SKIPPED < QUEUE as usize);
