//! Names for people: wherever the API wants an id or a digest, the beginning of one will do, and so will
//! the name of a device, a token or a dataset, or a model's `name/version`, as long as exactly one thing
//! is meant. A model's name alone means its newest version.

use std::fmt::Display;

use fleetloop_protocol::api::datasets::DatasetSummary;
use fleetloop_protocol::api::devices::Device;
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::StoredReport;
use fleetloop_protocol::api::samples::Sample;
use fleetloop_protocol::api::tokens::{ApiToken, TokenId, TokenState};
use fleetloop_protocol::{BundleDigest, DeviceId, Digest};

use super::client::{Client, query};

/// A text that means nothing, or more than one thing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unclear(String);

/// The shortest beginning of a digest that is looked for.
const LEAST_DIGITS: usize = 4;

/// The dataset that `text` means.
///
/// # Errors
/// None or several are meant, or the hub cannot be asked.
pub async fn dataset(client: &Client, text: &str) -> anyhow::Result<Digest> {
    if let Ok(digest) = text.parse() {
        return Ok(digest);
    }
    let all: Vec<DatasetSummary> = client.get("list datasets", "/datasets").await?;
    let known = all.iter().map(|d| (d.digest, d.name.clone())).collect::<Vec<_>>();
    Ok(one("dataset", "fleet-hub dataset list", text, &known)?)
}

/// The bundle that `text` means.
///
/// # Errors
/// None or several are meant, or the hub cannot be asked.
pub async fn bundle(client: &Client, text: &str) -> anyhow::Result<BundleDigest> {
    if let Ok(digest) = text.parse() {
        return Ok(BundleDigest(digest));
    }
    let all: Vec<Model> = client.get("list models", "/models").await?;
    if let Some(newest) = all.iter().filter(|m| m.name == text).max_by_key(|m| m.version) {
        return Ok(newest.bundle);
    }
    let name = |m: &Model| format!("{}/{}", m.name, m.version);
    let known = all.iter().map(|m| (m.bundle.0, name(m))).collect::<Vec<_>>();
    Ok(BundleDigest(one("bundle", "fleet-hub model list", text, &known)?))
}

/// The report that `text` means.
///
/// # Errors
/// None or several are meant, or the hub cannot be asked.
pub async fn report(client: &Client, text: &str) -> anyhow::Result<Digest> {
    if let Ok(digest) = text.parse() {
        return Ok(digest);
    }
    let all: Vec<StoredReport> = client.get("list reports", "/reports?all=true").await?;
    // A report has no name that it could be called by.
    let known = all.iter().map(|r| (r.digest, String::new())).collect::<Vec<_>>();
    Ok(one("report", "fleet-hub report list", text, &known)?)
}

/// The samples that `texts` mean, in their order: digests, or beginnings of them.
///
/// # Errors
/// None or several are meant by one, or the hub cannot be asked.
pub async fn samples(client: &Client, texts: &[String]) -> anyhow::Result<Vec<Digest>> {
    let mut found = Vec::with_capacity(texts.len());
    for text in texts {
        found.push(sample(client, text).await?);
    }
    Ok(found)
}

/// The sample that `text` means.
///
/// # Errors
/// As [`samples`].
pub async fn sample(client: &Client, text: &str) -> anyhow::Result<Digest> {
    if let Ok(digest) = text.parse() {
        return Ok(digest);
    }
    let hexadecimal = text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    let known = if hexadecimal && text.len() >= LEAST_DIGITS {
        let query = query(&[("starts", Some(text.to_owned())), ("limit", Some("3".to_owned()))]);
        let all: Vec<Sample> = client.get("list samples", &format!("/samples{query}")).await?;
        // A sample has no name that it could be called by.
        all.iter().map(|one| (one.sample, String::new())).collect()
    } else {
        Vec::new()
    };
    Ok(one("sample", "fleet-hub sample list", text, &known)?)
}

/// The device that `text` means: its id, the beginning of it, or its name.
///
/// # Errors
/// None or several are meant, or the hub cannot be asked.
pub async fn device(client: &Client, text: &str) -> anyhow::Result<DeviceId> {
    // `dev-` and ten more, as the hub gives them.
    if let (true, 14, Ok(id)) = (text.starts_with("dev-"), text.len(), text.parse()) {
        return Ok(id);
    }
    let all: Vec<Device> = client.get("list devices", "/devices").await?;
    let known = all.into_iter().map(|d| (d.id, d.name)).collect::<Vec<_>>();
    Ok(one("device", "fleet-hub device list", text, &known)?)
}

/// The token that `text` means: its id, the beginning of it, or the name of a live one.
///
/// # Errors
/// None or several are meant, or the hub cannot be asked.
pub async fn token(client: &Client, text: &str) -> anyhow::Result<TokenId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let all: Vec<ApiToken> = client.get("list tokens", "/tokens").await?;
    let live = all.into_iter().filter(|token| matches!(token.state, TokenState::Live));
    let known = live.map(|token| (token.id, token.name)).collect::<Vec<_>>();
    Ok(one("token", "fleet-hub token list", text, &known)?)
}

/// What `text` means among what is `known` by id and name. A name goes before the beginning of an id.
fn one<T: Clone + Display>(
    kind: &str,
    list: &str,
    text: &str,
    known: &[(T, String)],
) -> Result<T, Unclear> {
    let called = |name: &String| !name.is_empty() && name == text;
    let mut meant: Vec<&(T, String)> =
        known.iter().filter(|(id, name)| called(name) || id.to_string() == text).collect();
    if meant.is_empty() && text.len() >= LEAST_DIGITS {
        meant = known.iter().filter(|(id, _)| id.to_string().starts_with(text)).collect();
    }
    match meant.as_slice() {
        [(id, _)] => Ok(id.clone()),
        [] => Err(Unclear(format!("no {kind} is called {text:?}; see '{list}'"))),
        several => Err(Unclear(format!(
            "{text:?} may mean {} {kind}s ({}); write more of the id, see '{list}'",
            several.len(),
            several.iter().map(|(id, _)| short(id)).collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The beginning of an id that is enough for people.
fn short<T: Display>(id: &T) -> String {
    id.to_string().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_mean_two_things_is_refused() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let known = [(a, "line 3".to_owned()), (b, "line 3".to_owned())];
        assert!(one("dataset", "l", "line 3", &known).unwrap_err().0.contains("2 datasets"));
        assert_eq!(one("dataset", "l", &a.short(), &known).unwrap(), a);
        assert!(one("dataset", "l", &a.to_string()[..3], &known).is_err());
        assert!(one("dataset", "l", "line 4", &known).unwrap_err().0.contains("no dataset"));
    }

    #[test]
    fn a_name_goes_before_the_beginning_of_an_id() {
        let known = [("dev-aaaa", "press 7"), ("dev-aabb", "dev-aa"), ("dev-cccc", "line 3")];
        let known = known.map(|(id, name)| (id.to_owned(), name.to_owned()));
        let found = |text: &str| one("device", "l", text, &known).map_err(|error| error.0);
        assert_eq!(found("press 7").unwrap(), "dev-aaaa");
        assert_eq!(found("dev-aa").unwrap(), "dev-aabb");
        assert_eq!(found("dev-c").unwrap(), "dev-cccc");
        assert!(found("dev-").unwrap_err().contains("3 devices"));
        assert!(found("").is_err());
    }
}
