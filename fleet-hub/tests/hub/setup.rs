//! Making a hub, and two of them over one folder.

use std::os::unix::fs::PermissionsExt as _;

use fleet_hub::clock::Clock;
use fleet_hub::config::Config;
use fleet_hub::init::{InitError, UNFINISHED, init};
use fleet_hub::serve::{Hub, ServeError};
use fleetloop_protocol::api::ApiAccess;

use crate::rig::{Rig, options};

#[tokio::test(flavor = "multi_thread")]
async fn init_makes_what_serve_reads_and_keeps_secrets_to_their_owner() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let made = init(&options, &Clock::system()).await.unwrap();
    let read = Config::load(&options.data).unwrap();
    assert_eq!(read.admin_url(), made.admin_url());
    let mode = |path: &str| {
        std::fs::metadata(options.data.join(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    for name in ["admin.toml", "annotator.toml", "worker.toml"] {
        assert_eq!(mode(name), 0o600, "{name}");
        let text = std::fs::read_to_string(options.data.join(name)).unwrap();
        let access: ApiAccess = toml::from_str(&text).unwrap();
        assert_eq!(access.url, made.admin_url());
    }
    for name in ["pki/ca.key", "pki/server.pem", "pki/hub-client.pem", "pki/receipt.pk8"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(std::fs::read_dir(&options.offline_keys).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    init(&options, &Clock::system()).await.unwrap();
    let before = std::fs::read(options.data.join("admin.toml")).unwrap();
    let again = init(&options, &Clock::system()).await;
    assert!(matches!(again, Err(InitError::NotEmpty { .. })));
    assert_eq!(std::fs::read(options.data.join("admin.toml")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_was_cut_short_is_named_by_init_and_by_serve() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let config = init(&options, &Clock::system()).await.unwrap();
    // What a power cut before the last step leaves.
    std::fs::File::create(options.data.join(UNFINISHED)).unwrap();
    let again = init(&options, &Clock::system()).await;
    assert!(matches!(again, Err(InitError::Unfinished { .. })));
    let served = Box::pin(Hub::start(config, Clock::system())).await;
    assert!(matches!(served, Err(ServeError::Init(InitError::Unfinished { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn init_refuses_keys_inside_the_data_directory_and_a_configuration_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let mut inside = options(dir.path());
    inside.offline_keys = inside.data.join("keys");
    let refused = init(&inside, &Clock::system()).await;
    assert!(matches!(refused, Err(InitError::KeysInside { .. })));
    let mut wrong = options(dir.path());
    wrong.mqtt_listen = "nowhere".into();
    assert!(matches!(init(&wrong, &Clock::system()).await, Err(InitError::Config(_))));
    assert!(!wrong.data.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_never_serve_the_same_folder() {
    let rig = Rig::start().await;
    let second = Box::pin(Hub::start(rig.config.clone(), Clock::system())).await;
    assert!(matches!(second, Err(ServeError::Locked { .. })));
}
