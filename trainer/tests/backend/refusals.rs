//! The committed list of reasons for which a backend test may be refused.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    cause: Vec<Cause>,
}

/// A cause: what the refusals have in common, and why it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cause {
    /// A part of the refusal's text.
    says: String,
    /// Why it is refused.
    #[expect(dead_code, reason = "for people")]
    because: String,
}

/// Refusals that no cause covers, and causes that cover none.
pub fn unlisted(refused: &[(String, String)]) -> Vec<String> {
    let list: List = toml::from_str(include_str!("refusals.toml")).expect("refusals.toml");
    let mut lines: Vec<String> = refused
        .iter()
        .filter(|(_, why)| !list.cause.iter().any(|cause| why.contains(&cause.says)))
        .map(|(name, why)| format!("{name}: {why}"))
        .collect();
    for cause in &list.cause {
        let count = refused.iter().filter(|(_, why)| why.contains(&cause.says)).count();
        println!("  {count:4} refused: {}", cause.says);
        if count == 0 {
            lines.push(format!("nobody is refused for '{}' any more", cause.says));
        }
    }
    lines
}
