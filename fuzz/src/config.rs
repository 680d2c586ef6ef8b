//! What is done with an `agent.toml`: checked, twice.
//!
//! The fuzz target and the test that runs every file of `seeds/config/` share this file.

use std::path::Path;

use edge_agent::config::Config;

/// Reads `bytes` as a configuration; whether they are one.
///
/// # Panics
/// When the second reading differs, or a refusal does not say why.
pub fn attempt(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let read = || Config::parse(text, Path::new("/etc/fleetloop"));
    match read() {
        Ok(config) => {
            assert_eq!(read().as_ref(), Ok(&config));
            assert!(config.http.listen.ip().is_loopback(), "it has no login");
            true
        }
        Err(problems) => {
            assert!(!problems.to_string().is_empty());
            false
        }
    }
}
