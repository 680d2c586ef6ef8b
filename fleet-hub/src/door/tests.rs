//! What comes before the handlers, through the real router.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::status::HubStatus;

use super::bodies;
use super::throttle::FREE;
use crate::api::testing::{Answer, Hub};
use crate::store::audit;

const PIECE: usize = 1024;
const MANUAL: &str = include_str!("../../../docs/api.md");

/// A body without an announced length, and how many bytes of it were read.
fn endless() -> (Body, Arc<AtomicUsize>) {
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    let pieces = futures::stream::repeat_with(move || {
        counted.fetch_add(PIECE, Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; PIECE]))
    });
    (Body::from_stream(pieces), read)
}

/// Each endpoint below `/api/v1` that the manual lists: its method and path.
fn endpoints() -> Vec<(Method, String)> {
    let rows = MANUAL.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let method: Method = cells.next()?.parse().ok()?;
        let path = cells.next()?.strip_prefix("`/")?.split(['?', '`']).next()?;
        let path = path
            .replace("{digest}", &Digest::ZERO.to_string())
            .replace("{id}", "1")
            .replace("{sample}", &Digest::ZERO.to_string());
        let is_known = [Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&method);
        is_known.then(|| (method, format!("/api/v1/{path}")))
    });
    let all: Vec<_> = rows.collect();
    assert!(all.len() > 30, "the manual's table is not read: {all:?}");
    all
}

#[tokio::test]
async fn without_a_token_nothing_of_a_body_is_read_whatever_the_endpoint() {
    let hub = Hub::new().await;
    for (method, path) in endpoints() {
        for token in [None, Some("fleethub1_guess")] {
            let (body, read) = endless();
            let mut request = Request::builder().method(&method).uri(&path);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            // Another address each time, so that none is slowed.
            let from = SocketAddr::from((rand_address(), 1));
            let answer = hub.send(request.extension(ConnectInfo(from)).body(body).unwrap()).await;
            assert_eq!(answer.status, 401, "{method} {path}: {:?}", answer.body);
            assert_eq!(read.load(Ordering::Relaxed), 0, "{method} {path}");
        }
    }
}

fn rand_address() -> [u8; 4] {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    (NEXT.fetch_add(1, Ordering::Relaxed) as u32).to_be_bytes()
}

#[tokio::test]
async fn no_endpoint_reads_more_of_a_body_than_its_limit() {
    let hub = Hub::new().await;
    let limits = &hub.state.config.limits;
    // A backup of the test's hub, which has no keys, breaks off.
    for (method, path) in endpoints().into_iter().filter(|(_, path)| !path.contains("/backup")) {
        let (body, read) = endless();
        let request = Request::builder()
            .method(&method)
            .uri(&path)
            .header("authorization", format!("Bearer {}", hub.admin))
            .header("origin", "https://localhost:8443")
            .header("content-type", "application/json");
        let json = request.body(body).unwrap();
        let answer = hub.send(json).await;
        let most = [
            (path.contains("/artefacts/"), limits.artefact_bytes as usize),
            (path.contains("/import") || path.contains("/done"), limits.request_bytes),
            (path.contains("/labels/set"), 256 * 1024),
        ];
        let most = most.iter().find(|(is_it, _)| *is_it).map_or(bodies::JSON_BYTES, |it| it.1);
        let read = read.load(Ordering::Relaxed);
        assert!(read <= most + 2 * PIECE, "{method} {path}: {read} of {most}: {answer:?}");
        if method == Method::GET {
            assert!(read <= 2 * PIECE, "{method} {path}: {read}");
        }
    }
}

#[tokio::test]
async fn a_login_reads_half_a_kilobyte_and_refuses_more_before_it_is_sent() {
    let hub = Hub::new().await;
    let login = |body: Body, len: Option<usize>| {
        let mut request = Request::post("/login")
            .header("origin", "https://localhost:8443")
            .header("content-type", "application/x-www-form-urlencoded");
        if let Some(len) = len {
            request = request.header("content-length", len);
        }
        hub.send(request.body(body).unwrap())
    };
    let (body, read) = endless();
    assert_eq!(login(body, None).await.status, 413);
    assert!(read.load(Ordering::Relaxed) <= 2 * PIECE);
    let (body, read) = endless();
    assert_eq!(login(body, Some(16 << 20)).await.error(413).code, "too_large");
    assert_eq!(read.load(Ordering::Relaxed), 0);
    let good = format!("token={}", hub.admin);
    assert_eq!(login(Body::from(good.clone()), Some(good.len())).await.status, 303);
}

#[test]
fn the_manual_lists_the_lines_of_the_log() {
    let manual = include_str!("../../../docs/operations.md");
    for line in [super::watch::WRONG, super::watch::WRONG_ELSEWHERE] {
        assert!(manual.contains(&format!("`{line}`")), "docs/operations.md does not list {line:?}");
    }
}

#[test]
fn the_manual_lists_every_route_and_every_limit_of_a_body() {
    for row in bodies::manual() {
        assert!(MANUAL.contains(&row), "docs/api.md should hold:\n{row}");
    }
    let listed = |path: &str| {
        let path = path.strip_prefix(crate::api::PREFIX).unwrap_or(path);
        MANUAL.contains(&format!("`{path}`"))
            || MANUAL.contains(&format!("`{path}?"))
            || ["GET", "PUT", "POST", "HEAD"]
                .iter()
                .any(|m| MANUAL.contains(&format!("`{m} {path}`")))
    };
    let mut found = 0;
    for (file, text) in sources(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for route in text.split(".route(\"").skip(1) {
            let path = route.split('"').next().unwrap_or_default();
            assert!(listed(path), "docs/api.md does not list {path} of {file}");
            found += 1;
        }
    }
    assert!(found > 30, "only {found} routes found");
}

fn sources(folder: std::path::PathBuf) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(path));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            all.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    all
}

async fn bearer(hub: &Hub, from: [u8; 4], token: &str) -> Answer {
    let request = Request::get("/api/v1/status")
        .header("authorization", format!("Bearer {token}"))
        .extension(ConnectInfo(SocketAddr::from((from, 1))));
    hub.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn wrong_tokens_are_slowed_and_counted_and_a_right_one_is_never_refused() {
    let hub = Hub::new().await;
    let attacker = [203, 0, 113, 7];
    for _ in 0..FREE {
        assert_eq!(bearer(&hub, attacker, "fleethub1_guess").await.status, 401);
    }
    for seconds in ["1", "2", "4"] {
        let answer = bearer(&hub, attacker, "fleethub1_guess").await;
        assert_eq!(answer.error(429).code, "later");
        assert_eq!(answer.headers["retry-after"], seconds);
    }
    // From elsewhere a wrong one is as good as the first, and a right one is taken from anywhere.
    assert_eq!(bearer(&hub, [198, 51, 100, 1], "fleethub1_guess").await.status, 401);
    assert_eq!(bearer(&hub, attacker, &hub.worker).await.status, 200);
    let status: HubStatus = bearer(&hub, [10, 0, 0, 1], &hub.admin).await.json();
    assert_eq!(status.credentials_wrong["bearer"], u64::from(FREE) + 4);
    assert_eq!(status.credentials_slowed["bearer"], 3);
    hub.state.watch.end_window(&hub.state.store).await;
    let lines = hub.state.store.read(|c| audit::last(c, 10)).await.unwrap();
    let line = lines.iter().find(|line| line.action == "credential.wrong").unwrap();
    assert_eq!(line.detail, "bearer 14 from 2 addresses");
}

#[tokio::test]
async fn wrong_logins_and_cookies_are_slowed_and_a_stale_cookie_is_taken_back() {
    let hub = Hub::new().await;
    let form = |token: &str| {
        Request::post("/login")
            .header("origin", "https://localhost:8443")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("token={token}")))
            .unwrap()
    };
    let page = || Request::get("/").header("cookie", "__Host-fleet_hub=x").body(Body::empty());
    let answer = hub.send(page().unwrap()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    for _ in 1..FREE {
        assert_eq!(hub.send(form("guess")).await.status, 401);
    }
    let answer = hub.send(form("guess")).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers.contains_key("retry-after"));
    // The form is there even so, and takes the cookie back.
    let answer = hub.send(page().unwrap()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains_key("set-cookie"));
    assert_eq!(hub.send(form(&hub.admin)).await.status, 303);
}

#[tokio::test]
async fn every_answer_forbids_framing_sniffing_and_keeping_and_a_domain_plain_http() {
    let hub = Hub::new().await;
    for path in ["/", "/healthz", "/api/v1/status", "/nothing", "/style.css"] {
        let answer = hub.send(Request::get(path).body(Body::empty()).unwrap()).await;
        for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")] {
            assert_eq!(answer.headers[name], value, "{path}");
        }
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(answer.headers.contains_key("cache-control"), "{path}");
        // The test's hub is called localhost, where plain HTTP may be at home.
        assert!(!answer.headers.contains_key("strict-transport-security"), "{path}");
    }
}

#[tokio::test]
async fn a_request_that_does_not_name_this_hub_is_refused() {
    let hub = Hub::new().await;
    let ask = |hosts: &[&str]| {
        let mut request = Request::get("/healthz");
        for host in hosts {
            request = request.header("host", *host);
        }
        hub.send(request.body(Body::empty()).unwrap())
    };
    for ours in ["localhost", "LOCALHOST:8443", "127.0.0.1:8443", "[::1]:9"] {
        assert_ne!(ask(&[ours]).await.status, 421, "{ours}");
    }
    assert_eq!(ask(&["evil.example"]).await.error(421).code, "misdirected");
    assert_eq!(ask(&["localhost.evil.example"]).await.error(421).code, "misdirected");
    assert_eq!(ask(&["localhost", "localhost"]).await.error(400).code, "invalid");
    assert_eq!(ask(&["localhost", "evil.example"]).await.error(400).code, "invalid");
}
