//! Requests of the local port name this machine: one `Host`, and it is `localhost` or a loopback
//! address. A web page whose name resolves to 127.0.0.1 (DNS rebinding) gets nothing. The port does
//! not matter, for a tunnel may use another.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// Refuses a request that does not name this machine.
pub(super) async fn only_this_machine(request: Request, next: Next) -> Response {
    if is_named_once(request.headers()) && request.uri().authority().is_none() {
        return next.run(request).await;
    }
    let why = "cannot serve the request: its Host is not localhost or a loopback address\n";
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

fn is_named_once(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(HOST).iter();
    let (Some(host), None) = (all.next(), all.next()) else { return false };
    let host = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    host.is_some_and(|host| !host.as_str().contains('@') && is_this_machine(host.host()))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| {
        address.to_canonical().is_loopback()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_are_served() {
        let ask = |hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            is_named_once(&headers)
        };
        for ours in ["localhost", "LocalHost:8470", "127.0.0.1:8470", "127.3.2.1", "[::1]:8470"] {
            assert!(ask(&[ours]), "{ours}");
        }
        for theirs in ["", "evil.example:8470", "localhost.evil.example", "10.0.0.1", "a@localhost"]
        {
            assert!(!ask(&[theirs]), "{theirs}");
        }
        assert!(!ask(&[]) && !ask(&["localhost", "localhost"]));
    }
}
