//! The page through the router.

use axum::body::Body;
use axum::http::{Method, Request};
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::sample::Selection;

use crate::api::testing::{Answer, Hub, NOW, picture};
use crate::store::{findings, sessions};

async fn send(
    hub: &Hub,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8443");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    hub.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const OURS: (&str, &str) = ("origin", "https://localhost:8443");

/// Logs in and returns the cookie as a browser sends it.
async fn log_in(hub: &Hub, token: &str) -> String {
    let answer = send(hub, Method::POST, "/login", &[FORM, OURS], &format!("token={token}")).await;
    assert_eq!(answer.status.as_u16(), 303, "{}", answer.text());
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    for attribute in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn without_a_login_there_is_a_form_and_nothing_else() {
    let hub = Hub::new().await;
    hub.device("dev-a", "press 7").await;
    let answer = send(&hub, Method::GET, "/", &[], "").await;
    assert!(answer.text().contains("name=\"token\""));
    assert!(!answer.text().contains("press 7"));
    let policy = answer.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("script"), "{policy}");
    let forged = send(&hub, Method::GET, "/", &[("cookie", "__Host-fleet_hub=x")], "").await;
    assert!(forged.text().contains("name=\"token\""));
    let path = format!("/pictures/{}", fleetloop_protocol::Digest::of(&picture(1)));
    assert_eq!(send(&hub, Method::GET, &path, &[], "").await.error(401).code, "unauthorized");
}

#[tokio::test]
async fn whoever_logs_in_sees_devices_and_samples_until_the_session_ends() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    hub.sample(&mut device, &picture(1), Selection::Uncertain { score: 0.8 }).await;
    let cookie = log_in(&hub, &hub.annotator).await;
    let with = [("cookie", cookie.as_str())];
    let text = send(&hub, Method::GET, "/", &with, "").await.text();
    for part in ["press 7", "anna is logged in", "bag (60 %)", "uncertain 0.80", "none yet"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let path = text.split("src=\"").nth(1).unwrap().split('"').next().unwrap();
    let shown = send(&hub, Method::GET, path, &with, "").await;
    assert_eq!((shown.status.as_u16(), shown.body.to_vec()), (200, picture(1)));
    // A session names a token; it is none itself.
    let value = cookie.split_once('=').unwrap().1;
    let api = hub.ask(Method::GET, value, "/api/v1/samples", Body::empty()).await;
    assert_eq!(api.error(401).code, "unauthorized");
    hub.state.clock.set(UnixMillis(NOW.0 + sessions::VALID_MS));
    let text = send(&hub, Method::GET, "/", &with, "").await.text();
    assert!(!text.contains("press 7"));
}

#[tokio::test]
async fn logging_out_ends_the_session_at_the_hub() {
    let hub = Hub::new().await;
    let cookie = log_in(&hub, &hub.admin).await;
    let with = [("cookie", cookie.as_str()), OURS];
    assert!(send(&hub, Method::GET, "/", &with, "").await.text().contains("alice is logged in"));
    let out = send(&hub, Method::POST, "/logout", &with, "").await;
    assert_eq!(out.status.as_u16(), 303);
    assert!(send(&hub, Method::GET, "/", &with, "").await.text().contains("name=\"token\""));
}

#[tokio::test]
async fn a_form_from_another_site_is_refused() {
    let hub = Hub::new().await;
    let body = format!("token={}", hub.admin);
    let evil = ("origin", "https://localhost:8443.evil.example");
    for headers in [&[FORM][..], &[FORM, ("origin", "null")], &[FORM, evil]] {
        let answer = send(&hub, Method::POST, "/login", headers, &body).await;
        assert_eq!(answer.error(403).code, "forbidden");
    }
}

#[tokio::test]
async fn an_unknown_token_and_a_workers_open_no_page() {
    let hub = Hub::new().await;
    let unknown = send(&hub, Method::POST, "/login", &[FORM, OURS], "token=x").await;
    assert_eq!(unknown.status.as_u16(), 401);
    assert!(unknown.headers.get("set-cookie").is_none());
    let body = format!("token={}", hub.worker);
    assert_eq!(send(&hub, Method::POST, "/login", &[FORM, OURS], &body).await.status.as_u16(), 403);
}

#[tokio::test]
async fn what_people_and_devices_say_is_escaped() {
    let hub = Hub::new().await;
    hub.device("dev-a", "<script>alert(1)</script>\u{202e}x\u{1b}[2J\u{200b}").await;
    let cookie = log_in(&hub, &hub.admin).await;
    let text = send(&hub, Method::GET, "/", &[("cookie", &cookie)], "").await.text();
    assert!(!text.contains("<script"), "{text}");
    assert!(text.contains("alert(1)"));
    assert!(text.contains("\\u{202e}x\\u{1b}[2J\\u{200b}"), "{text}");
    assert!(!text.contains(|c| c != '\n' && fleetloop_observe::text::is_hidden(c)));
}

#[tokio::test]
async fn open_findings_stand_first_with_what_to_do_and_acknowledged_ones_do_not() {
    let hub = Hub::new().await;
    let device = hub.device("dev-a", "press 7").await.id;
    let found = hub.state.store.write(move |tx| {
        let (kind, device, subject) = (findings::Kind::Clone, Some(&device), "epoch 1");
        let new = findings::NewFinding { kind, device, subject, detail: "two keys", at: NOW };
        findings::record(tx, &new)
    });
    found.await.unwrap();
    let cookie = log_in(&hub, &hub.annotator).await;
    let text = send(&hub, Method::GET, "/", &[("cookie", &cookie)], "").await.text();
    let meaning = findings::Kind::Clone.meaning().replace('\'', "&#39;");
    for part in ["press 7 (dev-a)", "epoch 1", "two keys", &meaning] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(text.find("epoch 1") < text.find("id=\"devices\""), "{text}");
    let acknowledge = serde_json::json!({ "note": "found the other" });
    let path = "/api/v1/findings/1/acknowledge";
    assert!(hub.post(path, &acknowledge).await.status.is_success());
    let text = send(&hub, Method::GET, "/", &[("cookie", &cookie)], "").await.text();
    assert!(!text.contains("epoch 1"), "{text}");
}

/// Posts a form of the labelling page and returns where it leads to.
async fn post(hub: &Hub, cookie: &str, path: &str, body: &str) -> String {
    let headers = [FORM, OURS, ("cookie", cookie)];
    let answer = send(hub, Method::POST, path, &headers, body).await;
    assert_eq!(answer.status.as_u16(), 303, "{}", answer.text());
    answer.headers["location"].to_str().unwrap().to_owned()
}

async fn label_of(hub: &Hub, sample: fleetloop_protocol::Digest) -> Option<String> {
    let path = format!("/api/v1/samples/{sample}");
    hub.get(&path).await.json::<fleetloop_protocol::api::samples::Sample>().label
}

#[tokio::test]
async fn pictures_are_labelled_skipped_and_taken_back_in_the_page() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    let chosen = Selection::Uncertain { score: 0.8 };
    let mut samples = Vec::new();
    for shade in 1..=3 {
        samples.push(hub.sample(&mut device, &picture(shade), chosen).await);
    }
    let cookie = log_in(&hub, &hub.annotator).await;
    let with = [("cookie", cookie.as_str())];
    let shown = async |path: &str| {
        let text = send(&hub, Method::GET, path, &with, "").await.text();
        let asked = samples.iter().copied().find(|one| {
            text.contains(&format!(
                "action=\"/label\">\n<input type=\"hidden\" name=\"sample\" value=\"{one}\""
            ))
        });
        (text, asked)
    };
    let (text, first) = shown("/label").await;
    let first = first.unwrap();
    for part in
        ["value=\"boot\"", "value=\"bag\"", "value=\"coat\"", "3 pictures wait", "Prediction"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    // Skipped, it is not the next one.
    let skip = text.split("href=\"/label?skipped=").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(skip, first.to_string());
    let (_, second) = shown(&format!("/label?skipped={skip}")).await;
    let second = second.unwrap();
    assert_ne!(first, second);

    let body = format!("sample={second}&label=bag&skipped={skip}");
    let next = post(&hub, &cookie, "/label", &body).await;
    assert_eq!(label_of(&hub, second).await.as_deref(), Some("bag"));
    let (text, third) = shown(&next).await;
    assert!(third.unwrap() != first && third.unwrap() != second);
    assert!(text.contains("is labelled <strong>bag</strong>"), "{text}");

    let back = post(&hub, &cookie, "/label/undo", &format!("sample={second}&skipped={skip}")).await;
    assert_eq!(label_of(&hub, second).await, None);
    assert_eq!(shown(&back).await.1, Some(second), "it is shown again");

    // A colleague is corrected, and the correction taken back.
    let request = serde_json::json!({ "sample": first, "label": "boot" });
    assert!(hub.post("/api/v1/labels", &request).await.status.is_success());
    let (text, asked) = shown(&format!("/label?sample={first}")).await;
    assert_eq!(asked, Some(first));
    assert!(text.contains("value=\"boot\" class=\"current\""), "{text}");
    post(&hub, &cookie, "/label", &format!("sample={first}&label=coat")).await;
    assert_eq!(label_of(&hub, first).await.as_deref(), Some("coat"));
    post(&hub, &cookie, "/label/undo", &format!("sample={first}")).await;
    assert_eq!(label_of(&hub, first).await.as_deref(), Some("boot"), "the colleague's");
}

#[tokio::test]
async fn labelling_needs_a_login_and_this_hubs_own_form() {
    let hub = Hub::new().await;
    let mut device = hub.device("dev-a", "press 7").await;
    let sample = hub.sample(&mut device, &picture(1), Selection::Random { rate: 0.1 }).await;
    let body = format!("sample={sample}&label=bag");
    for path in ["/label", "/label/undo"] {
        let answer = send(&hub, Method::POST, path, &[FORM, OURS], &body).await;
        assert_eq!(answer.error(401).code, "unauthorized");
        let cookie = log_in(&hub, &hub.annotator).await;
        let evil = ("origin", "https://evil.example");
        let headers = [FORM, evil, ("cookie", &cookie)];
        let answer = send(&hub, Method::POST, path, &headers, &body).await;
        assert_eq!(answer.error(403).code, "forbidden");
    }
    assert_eq!(send(&hub, Method::GET, "/label", &[], "").await.status.as_u16(), 303);
    assert_eq!(label_of(&hub, sample).await, None);
}

#[tokio::test]
async fn a_picture_that_exif_turns_is_shown_upright() {
    use fleetloop_models::picture::Frame;
    use fleetloop_protocol::Digest;
    use fleetloop_protocol::api::datasets::Split;
    use fleetloop_protocol::sample::MediaType;

    let turned: &[u8] = include_bytes!("../../../models/tests/data/pictures/exif6.png");
    let hub = Hub::new().await;
    hub.imports(Split::Train, "s", &[(turned.to_vec(), "boot")]).await;
    let cookie = log_in(&hub, &hub.annotator).await;
    let path = format!("/pictures/{}", Digest::of(turned));
    let shown = send(&hub, Method::GET, &path, &[("cookie", cookie.as_str())], "").await;
    assert_eq!(shown.headers["content-type"], "image/png");
    assert!(!Frame::is_turned(MediaType::Png, &shown.body), "no browser turns it again");
    let frame = Frame::decode(MediaType::Png, &shown.body).unwrap();
    assert_eq!((frame.width(), frame.height()), (32, 24));
    assert_eq!((frame.pixels()[0], frame.pixels()[23 * 32]), (220, 30), "the bar is at the top");
    // Whoever asks for the payload gets the bytes that the digest names.
    let payload = hub.get(&format!("/api/v1/payloads/{}", Digest::of(turned))).await;
    assert_eq!(payload.body, turned);
}
