//! Tokens through the router.

use axum::body::Body;
use axum::http::{Method, Request};
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::tokens::{
    ApiToken, LastAdmin, MadeApiToken, NewApiToken, RevokeApiToken, RotateApiToken, TokenState,
};
use fleetloop_protocol::api::{ApiAccess, Role};

use super::testing::{Answer, Hub, NOW};

async fn tokens(hub: &Hub) -> Vec<ApiToken> {
    hub.get("/api/v1/tokens").await.json()
}

async fn token(hub: &Hub, name: &str) -> ApiToken {
    tokens(hub).await.into_iter().find(|token| token.name == name).unwrap()
}

async fn add(hub: &Hub, name: &str, role: Role, valid_s: Option<u64>) -> MadeApiToken {
    hub.post("/api/v1/tokens", &NewApiToken { name: name.into(), role, valid_s }).await.json()
}

async fn revoke(hub: &Hub, token: &ApiToken, last_admin: LastAdmin) -> Answer {
    let path = format!("/api/v1/tokens/{}/revoke", token.id);
    hub.post(&path, &RevokeApiToken { last_admin }).await
}

async fn status(hub: &Hub, token: &str) -> Answer {
    hub.ask(Method::GET, token, "/api/v1/status", Body::empty()).await
}

#[tokio::test]
async fn a_revoked_and_an_expired_token_open_nothing_and_only_their_holder_learns_why() {
    let hub = Hub::new().await;
    let short = add(&hub, "short", Role::Worker, Some(60)).await;
    let gone = add(&hub, "gone", Role::Worker, None).await;
    assert_eq!(
        (status(&hub, &short.token).await.status.as_u16(), short.about.state),
        (200, TokenState::Live)
    );
    assert_eq!(revoke(&hub, &gone.about, LastAdmin::Keep).await.status, 200);
    assert_eq!(revoke(&hub, &gone.about, LastAdmin::Keep).await.status, 200, "again");
    hub.state.clock.set(UnixMillis(NOW.0 + 60_000));
    for (token, says) in [(&short.token, "ended at"), (&gone.token, "was revoked at")] {
        let error = status(&hub, token).await.error(401);
        assert_eq!(error.code, "unauthorized");
        assert!(error.message.contains(says), "{error}");
    }
    let unknown = status(&hub, "fleethub1_guess").await.error(401);
    assert!(unknown.message.contains("does not know this token"), "{unknown}");
    let states: Vec<_> = tokens(&hub).await.into_iter().map(|t| (t.name, t.state)).collect();
    assert!(states.contains(&("short".into(), TokenState::Expired)), "{states:?}");
    assert!(states.contains(&("gone".into(), TokenState::Revoked)), "{states:?}");
    // Its name is free again.
    assert_eq!(add(&hub, "short", Role::Worker, None).await.about.expires_at_ms, None);
}

#[tokio::test]
async fn a_login_of_the_page_ends_with_its_token() {
    let hub = Hub::new().await;
    let short = add(&hub, "short", Role::Annotator, Some(60)).await;
    let gone = add(&hub, "gone", Role::Annotator, None).await;
    let log_in = async |token: &str| {
        let request = Request::post("/login")
            .header("origin", "https://localhost:8443")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("token={token}")))
            .unwrap();
        let answer = hub.send(request).await;
        let cookie = answer.headers.get("set-cookie").map(|value| value.to_str().unwrap());
        (answer.status.as_u16(), cookie.and_then(|c| c.split(';').next()).map(str::to_owned))
    };
    let page = async |cookie: &Option<String>| {
        let request = Request::get("/").header("cookie", cookie.as_ref().unwrap());
        hub.send(request.body(Body::empty()).unwrap()).await.text()
    };
    let (first, second) = (log_in(&short.token).await.1, log_in(&gone.token).await.1);
    assert!(
        page(&first).await.contains("is logged in") && page(&second).await.contains("is logged in")
    );
    revoke(&hub, &gone.about, LastAdmin::Keep).await;
    assert!(
        page(&first).await.contains("is logged in")
            && !page(&second).await.contains("is logged in")
    );
    hub.state.clock.set(UnixMillis(NOW.0 + 60_000));
    assert!(!page(&first).await.contains("is logged in"));
    assert_eq!((log_in(&short.token).await.0, log_in(&gone.token).await.0), (401, 401));
}

#[tokio::test]
async fn rotating_shows_the_new_token_once_and_the_old_one_works_on_for_the_overlap() {
    let hub = Hub::new().await;
    let old = token(&hub, "worker").await;
    let path = format!("/api/v1/tokens/{}/rotate", old.id);
    let made: MadeApiToken = hub.post(&path, &RotateApiToken { overlap_s: 3600 }).await.json();
    assert_eq!((made.about.role, made.about.name.as_str()), (Role::Worker, "worker"));
    assert!(!hub.get("/api/v1/tokens").await.text().contains(&made.token));
    for works in [&hub.worker, &made.token] {
        assert_eq!(status(&hub, works).await.status, 200);
    }
    hub.state.clock.set(UnixMillis(NOW.0 + 3_600_000));
    assert_eq!(status(&hub, &hub.worker).await.status, 401);
    assert_eq!(status(&hub, &made.token).await.status, 200);
    let refused = hub.post(&path, &RotateApiToken { overlap_s: 0 }).await.error(409);
    assert!(refused.message.contains("token add"), "{refused}");
    let long = format!("/api/v1/tokens/{}/rotate", made.about.id);
    let refused = hub.post(&long, &RotateApiToken { overlap_s: 31 * 24 * 3600 }).await;
    assert_eq!(refused.error(400).code, "invalid");
}

#[tokio::test]
async fn rotating_the_token_of_the_hubs_own_worker_reaches_its_access_file() {
    let hub = Hub::new().await;
    let file = hub.dir.path().join("worker.toml");
    let read = || toml::from_str::<ApiAccess>(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let access = ApiAccess {
        url: "https://localhost:1".into(),
        token: hub.worker.clone(),
        ca_pem: "x".into(),
    };
    let text = toml::to_string(&access).unwrap();
    crate::durable::write(&file, text.as_bytes(), crate::durable::Access::Owner).unwrap();
    let rotate = async |name: &str| -> MadeApiToken {
        let path = format!("/api/v1/tokens/{}/rotate", token(&hub, name).await.id);
        hub.post(&path, &RotateApiToken { overlap_s: 60 }).await.json()
    };
    rotate("anna").await;
    assert_eq!(read().token, hub.worker, "another's token changes nothing");
    let made = rotate("worker").await;
    assert_eq!((read().token, read().url), (made.token, access.url));
}

#[tokio::test]
async fn the_last_admin_token_without_an_end_is_revoked_only_when_asked_in_so_many_words() {
    let hub = Hub::new().await;
    let last = token(&hub, "alice").await;
    // One that ends by itself is no way in for ever.
    add(&hub, "visitor", Role::Admin, Some(60)).await;
    let refused = revoke(&hub, &last, LastAdmin::Keep).await.error(409);
    assert!(refused.message.contains("--lock-out-all-admins"), "{refused}");
    let second = add(&hub, "bob", Role::Admin, None).await;
    assert_eq!(revoke(&hub, &second.about, LastAdmin::Keep).await.status, 200);
    assert_eq!(revoke(&hub, &last, LastAdmin::LockOut).await.status, 200);
    assert_eq!(hub.get("/api/v1/tokens").await.status, 401);
}

#[tokio::test]
async fn a_tokens_last_use_is_shown_at_once_and_written_later() {
    let hub = Hub::new().await;
    assert_eq!(token(&hub, "worker").await.last_used_at_ms, None);
    status(&hub, &hub.worker).await;
    assert_eq!(token(&hub, "worker").await.last_used_at_ms, Some(NOW.0));
    let stored = async || {
        let rows = hub.state.store.read(|c| crate::store::tokens::list(c, NOW)).await.unwrap();
        rows.into_iter().find(|row| row.about.name == "worker").unwrap().about.last_used_at_ms
    };
    assert_eq!(stored().await, None, "no request writes");
    hub.state.last_use.write(&hub.state.store).await.unwrap();
    assert_eq!(
        (stored().await, token(&hub, "worker").await.last_used_at_ms),
        (Some(NOW.0), Some(NOW.0))
    );
}

#[tokio::test]
async fn a_token_has_a_name_of_its_own_and_an_end_that_can_be() {
    let hub = Hub::new().await;
    let ask = async |name: &str, valid_s| {
        let wanted = NewApiToken { name: name.into(), role: Role::Worker, valid_s };
        hub.post("/api/v1/tokens", &wanted).await.status.as_u16()
    };
    for wrong in ["", " x", "a\nb", &"x".repeat(65)] {
        assert_eq!(ask(wrong, None).await, 400, "{wrong:?}");
    }
    assert_eq!((ask("x", Some(0)).await, ask("x", Some(u64::MAX)).await), (400, 400));
    assert_eq!((ask("worker", None).await, ask("worker 2", None).await), (409, 201));
    let none = hub.post("/api/v1/tokens/tok-aaaaaaaa/revoke", &RevokeApiToken::default()).await;
    assert_eq!(none.error(404).code, "not_found");
    let wrong = hub.post("/api/v1/tokens/1/revoke", &RevokeApiToken::default()).await;
    assert_eq!(wrong.error(400).code, "invalid");
}
