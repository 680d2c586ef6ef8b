//! What is done with an `agent.toml`: checked, twice.
//!
//! The fuzz target and the test that runs every file of `seeds/config/` share this file.

use std::path::Path;

use edge_agent::config::{Config, Place};

/// Reads `bytes` as a configuration; whether they are one.
///
/// # Panics
/// When the second reading differs, or a refusal does not say why.
pub fn attempt(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let base = Path::new("/etc/fleetloop");
    let read = || Config::parse(text, base);
    let place = Place::parse(text, base);
    match read() {
        Ok(config) => {
            assert_eq!(read().as_ref(), Ok(&config));
            let there = place.map(|place| (place.data_dir, place.listen, place.problems));
            assert_eq!(there, Ok((config.data_dir, config.http.listen, None)));
            assert!(config.http.listen.ip().is_loopback(), "it has no login");
            true
        }
        Err(problems) => {
            assert!(!problems.to_string().is_empty());
            match place {
                Ok(place) => assert!(place.listen.ip().is_loopback() && place.problems.is_some()),
                Err(same) => assert_eq!(same, problems),
            }
            false
        }
    }
}
