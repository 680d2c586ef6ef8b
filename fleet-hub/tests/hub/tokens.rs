//! Tokens from the command line, on a hub that serves.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use fleetloop_protocol::api::ApiAccess;
use fleetloop_protocol::api::tokens::{ApiToken, MadeApiToken, TokenState};

use crate::rig::Rig;

fn ask(access: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-hub"));
    command.arg("--access").arg(access).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json<T: serde::de::DeserializeOwned>(output: &Output) -> T {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_adds_rotates_and_revokes_tokens_from_the_command_line() {
    let rig = Rig::start().await;
    let data = &rig.config.paths.data;
    let (admin, anna) = (data.join("admin.toml"), rig.dir.path().join("anna.toml"));
    let write = anna.display().to_string();
    let add = ["token", "add", "Anna", "--role", "annotator", "--expires", "90", "--write", &write];
    let made = ask(&admin, &add);
    assert!(made.status.success(), "{}", said(&made));
    let text = std::fs::read_to_string(&anna).unwrap();
    let token = toml::from_str::<ApiAccess>(&text).unwrap().token;
    assert!(!String::from_utf8_lossy(&made.stdout).contains(&token), "it is in the file only");
    assert_eq!(std::fs::metadata(&anna).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(ask(&anna, &["label", "names"]).status.success());

    let list = || json::<Vec<ApiToken>>(&ask(&admin, &["token", "list", "--json"]));
    let of = |name: &str| list().into_iter().find(|token| token.name == name).unwrap();
    let hers = of("Anna");
    assert!(hers.last_used_at_ms.is_some() && hers.expires_at_ms.is_some(), "{hers:?}");

    let worker = || std::fs::read_to_string(data.join("worker.toml")).unwrap();
    let before = worker();
    let rotate = ["token", "rotate", of("worker").id.as_str(), "--overlap-hours", "0", "--json"]
        .map(str::to_owned);
    let rotate: Vec<&str> = rotate.iter().map(String::as_str).collect();
    let made: MadeApiToken = json(&ask(&admin, &rotate));
    assert_ne!(worker(), before);
    assert_eq!(toml::from_str::<ApiAccess>(&worker()).unwrap().token, made.token);

    let revoked = ask(&admin, &["token", "revoke", hers.id.as_str()]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    assert_eq!(of("Anna").state, TokenState::Revoked);
    let refused = ask(&anna, &["label", "names"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("was revoked"), "{}", said(&refused));
    let refused = ask(&admin, &["token", "revoke", of("admin").id.as_str()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("--lock-out-all-admins"), "{}", said(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_locked_all_admins_out_recovers_on_the_hubs_own_machine() {
    let mut rig = Rig::start().await;
    let admin = rig.config.paths.data.join("admin.toml");
    let all: Vec<ApiToken> = json(&ask(&admin, &["token", "list", "--json"]));
    let mine = all.iter().find(|token| token.name == "admin").unwrap();
    let revoke = ["token", "revoke", mine.id.as_str(), "--lock-out-all-admins"];
    assert!(ask(&admin, &revoke).status.success());
    assert_eq!(ask(&admin, &["token", "list"]).status.code(), Some(1));
    let data = rig.config.paths.data.clone();
    let recover = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-hub"));
        command.args(["recover-admin", "--data"]).arg(&data).output().unwrap()
    };
    let refused = recover();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("another fleet-hub serves it"), "{}", said(&refused));
    rig.stop().await;
    let made = recover();
    assert!(made.status.success(), "{}", said(&made));
    rig.serve().await;
    let all: Vec<ApiToken> = json(&ask(&admin, &["token", "list", "--json"]));
    assert!(all.iter().any(|token| token.created_by == "recover-admin"), "{all:?}");
}
