//! A proxy that the environment names is not used, and that is said.
//!
//! MQTT goes through no HTTP proxy, and the hub's certificate is checked end to end; so agents, hub,
//! workers and command lines speak to each other directly. Whoever has set a proxy for other programs
//! reads here why a connection does not come about.

/// What other programs read for HTTPS.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// To follow an error about an address that does not answer; empty when no proxy is named.
pub fn note() -> &'static str {
    note_if(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn note_if(is_set: impl Fn(&str) -> bool) -> &'static str {
    if VARIABLES.into_iter().any(is_set) {
        "; the environment names a proxy, which is not used: this machine has to reach the address itself"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_named_is_said_not_to_be_used() {
        assert_eq!(note_if(|_| false), "");
        assert_eq!(note_if(|name| name == "HTTP_PROXY"), "", "that one is for plain HTTP");
        for name in VARIABLES {
            assert!(note_if(|set| set == name).contains("not used"), "{name}");
        }
    }
}
