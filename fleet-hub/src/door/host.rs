//! A request must name this hub: one `Host`, and one of the names in the hub's certificate.
//!
//! A page of another name that resolves to the hub's address (DNS rebinding) would otherwise read
//! the hub's answers with the browser's help, and two `Host` headers mean one thing to a proxy and
//! another to the hub. The port does not matter: a proxy or a tunnel may use another.

use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;

use crate::AppState;
use crate::api::error::Failure;

/// Refuses a request that does not name this hub.
///
/// # Errors
/// 400 for a request that names none or two, 421 for another's name.
pub async fn only_ours(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let host = named(request.headers(), request.uri()).map_err(|why| {
        Failure::invalid(format!("cannot serve the request: {why}; send one Host header"))
    })?;
    if state.config.server_names().iter().any(|name| is_same(name, &host)) {
        return Ok(next.run(request).await);
    }
    // The name is the client's: it is not repeated.
    Err(Failure::new(
        StatusCode::MISDIRECTED_REQUEST,
        "misdirected",
        "cannot serve the request: its Host is none of this hub's names; use a name that is in the hub's certificate ('host' in hub.toml)",
    ))
}

/// The host that a request names, without its port.
///
/// # Errors
/// It names none, two, or something that is no host.
pub fn named(headers: &HeaderMap, uri: &Uri) -> Result<String, &'static str> {
    let mut all = headers.get_all(HOST).iter();
    let header = match (all.next(), all.next()) {
        (Some(_), Some(_)) => return Err("it has two Host headers"),
        (Some(value), None) => {
            let parsed = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
            Some(parsed.ok_or("its Host header is no host")?)
        }
        (None, _) => None,
    };
    let authority = match (header, uri.authority()) {
        (Some(header), Some(target)) if header != *target => {
            return Err("its Host header and its target differ");
        }
        (Some(header), _) => header,
        (None, Some(target)) => target.clone(),
        (None, None) => return Err("it has no Host header"),
    };
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err("its Host header is no host");
    }
    Ok(authority.host().to_owned())
}

fn is_same(name: &str, host: &str) -> bool {
    let address = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    match (address(name), address(host)) {
        (Some(name), Some(host)) => name == host,
        (None, None) => host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(name),
        _ => false,
    }
}

/// Whether browsers shall be told to use TLS only for that host: not for this machine or an
/// address, where other programs may serve plain HTTP.
pub(super) fn is_domain(host: &str) -> bool {
    !host.eq_ignore_ascii_case("localhost")
        && !host.starts_with('[')
        && host.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(hosts: &[&str], uri: &str) -> Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        named(&headers, &uri.parse().unwrap())
    }

    #[test]
    fn a_request_names_one_host() {
        assert_eq!(ask(&["hub.plant:8443"], "/").unwrap(), "hub.plant");
        assert_eq!(ask(&["[::1]:8443"], "/").unwrap(), "[::1]");
        assert_eq!(ask(&[], "https://hub.plant/x").unwrap(), "hub.plant");
        assert!(ask(&["hub.plant", "hub.plant"], "/").is_err());
        assert!(ask(&["hub.plant", "evil.example"], "/").is_err());
        assert!(ask(&["evil.example"], "https://hub.plant/x").is_err());
        for wrong in ["", "a b", "user@hub.plant", "hub.plant:x/", "http://hub.plant"] {
            assert!(ask(&[wrong], "/").is_err(), "{wrong:?}");
        }
        assert!(ask(&[], "/").is_err());
    }

    #[test]
    fn names_are_compared_as_names_and_addresses_as_addresses() {
        assert!(is_same("Hub.plant", "hub.PLANT.") && is_same("::1", "[0:0::1]"));
        assert!(
            !is_same("hub.plant", "hub.plant.evil.example") && !is_same("10.0.0.1", "10.0.0.10")
        );
        assert!(is_domain("hub.plant"));
        assert!(!is_domain("localhost") && !is_domain("[::1]") && !is_domain("127.0.0.1"));
    }
}
