//! What can be a hub's name, the same wherever one is given: `init --host`, `host add`, `hub.toml`, and
//! an external broker's.
//!
//! | as typed | as kept |
//! |---|---|
//! | `Hub.Plant.example.` | `hub.plant.example`: names have no case, and certificates no final dot |
//! | `line_3-hub` | the same: TLS and URLs take underscores |
//! | `192.168.4.20` | the same |
//! | `fe80::1`, `[fe80::1]` | refused: the MQTT client takes no such address |
//! | `hub:8443`, `https://hub`, `halle-ü` | refused, with what to write instead |

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest name, in characters (RFC 1035, section 2.3.4).
const NAME: usize = 253;

/// The longest part of a name between dots.
const PART: usize = 63;

/// A name in the form in which it is kept.
///
/// # Errors
/// Why it cannot be a name and what to write instead, to follow "the name".
pub fn normal(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
        return Err(
            "is an IPv6 address, which the MQTT client cannot use; give the machine a name, \
                    or use its IPv4 address"
                .to_owned(),
        );
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return Ok(name);
    }
    if name.contains("://") || name.contains(['/', ':']) {
        return Err("is more than a name; leave out https://, port and path".to_owned());
    }
    if !name.is_ascii() {
        return Err("has letters beyond ASCII; write it as DNS has it (xn--…)".to_owned());
    }
    if name.is_empty() || name.len() > NAME {
        return Err(format!("must have 1 to {NAME} characters"));
    }
    let is_part = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=PART).contains(&part.len())
            && part.bytes().all(allowed)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if !name.split('.').all(is_part) {
        return Err(format!(
            "is no host name: between dots it has 1 to {PART} letters, digits, underscores and inner hyphens"
        ));
    }
    // Browsers and URLs read it as an address, and as another one.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err("looks like an IPv4 address and is none".to_owned());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn names_are_kept_in_one_form_which_tls_and_urls_take() {
        for (typed, kept) in [
            ("localhost", "localhost"),
            ("Hub.Plant.example.", "hub.plant.example"),
            ("line_3-hub", "line_3-hub"),
            ("_hub", "_hub"),
            ("192.168.4.20", "192.168.4.20"),
            ("xn--hlle-loa.example", "xn--hlle-loa.example"),
        ] {
            assert_eq!(normal(typed).as_deref(), Ok(kept), "{typed}");
            assert!(ServerName::try_from(kept).is_ok(), "{kept}");
            let url = url::Url::parse(&format!("https://{kept}:8443/")).unwrap();
            assert_eq!(url.host_str(), Some(kept));
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_with_what_to_write_instead() {
        for (typed, word) in [
            ("fe80::1", "IPv6"),
            ("[::1]", "IPv6"),
            ("https://hub", "https://"),
            ("hub:8443", "port"),
            ("halle-ü", "xn--"),
            ("", "1 to 253"),
            (".", "1 to 253"),
            ("a b", "no host name"),
            ("hub..plant", "no host name"),
            ("-hub", "no host name"),
            ("1.2.3", "IPv4"),
            ("10.0.0.256", "IPv4"),
        ] {
            let why = normal(typed).expect_err(typed);
            assert!(why.contains(word), "{typed}: {why}");
        }
        assert!(normal(&format!("{}.example", "a".repeat(64))).is_err());
    }
}
