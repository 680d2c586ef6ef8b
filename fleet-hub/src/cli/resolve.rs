//! Names for people: wherever the API wants a digest, the beginning of one will do, and so will a
//! dataset's name or a model's `name/version`, as long as exactly one thing is meant.

use fleetloop_protocol::api::datasets::DatasetSummary;
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::StoredReport;
use fleetloop_protocol::{BundleDigest, Digest};

use super::client::Client;

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

fn one(kind: &str, list: &str, text: &str, known: &[(Digest, String)]) -> Result<Digest, Unclear> {
    let by_digest = text.len() >= LEAST_DIGITS;
    let meant: Vec<&(Digest, String)> = known
        .iter()
        .filter(|(digest, name)| {
            name == text || (by_digest && digest.to_string().starts_with(text))
        })
        .collect();
    match meant.as_slice() {
        [(digest, _)] => Ok(*digest),
        [] => Err(Unclear(format!("no {kind} is called {text:?}; see '{list}'"))),
        several => Err(Unclear(format!(
            "{text:?} may mean {} {kind}s ({}); write more of the digest, see '{list}'",
            several.len(),
            several.iter().map(|(d, _)| d.short()).collect::<Vec<_>>().join(", ")
        ))),
    }
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
}
