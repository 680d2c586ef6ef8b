//! Making a hub, and two of them over one folder.

use std::os::unix::fs::PermissionsExt as _;

use fleet_hub::clock::Clock;
use fleet_hub::config::Config;
use fleet_hub::init::{InitError, init};
use fleet_hub::keys;
use fleet_hub::serve::{Hub, ServeError};
use fleet_hub::unfinished::UnfinishedError;
use fleetloop_protocol::UnixMillis;
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
    for name in ["admin.toml", "annotator.toml", "backup.toml", "worker.toml"] {
        assert_eq!(mode(name), 0o600, "{name}");
        let text = std::fs::read_to_string(options.data.join(name)).unwrap();
        let access: ApiAccess = toml::from_str(&text).unwrap();
        assert_eq!(access.url, made.admin_url());
    }
    for name in ["pki/ca.key", "pki/server.pem", "pki/hub-client.pem", "pki/receipt.pk8"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let offline = |name: &str| std::fs::metadata(options.offline_keys.join(name)).unwrap();
    for name in ["dev-root.pk8", "backup.key"] {
        assert_eq!(offline(name).permissions().mode() & 0o777, 0o600, "{name}");
    }
    // The two keys, and a copy of the root that it signed.
    assert_eq!(std::fs::read_dir(&options.offline_keys).unwrap().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    init(&options, &Clock::system()).await.unwrap();
    let before = std::fs::read(options.data.join("admin.toml")).unwrap();
    let again = init(&options, &Clock::system()).await;
    assert!(matches!(again, Err(InitError::Folder(UnfinishedError::NotEmpty { .. }))));
    assert_eq!(std::fs::read(options.data.join("admin.toml")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_was_cut_short_is_named_by_init_and_by_serve() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let config = init(&options, &Clock::system()).await.unwrap();
    // What a power cut before the last step leaves.
    std::fs::File::create(options.data.join("unfinished")).unwrap();
    let again = init(&options, &Clock::system()).await;
    assert!(matches!(again, Err(InitError::Folder(UnfinishedError::Unfinished { .. }))));
    let served = Box::pin(Hub::start(config, Clock::system())).await;
    assert!(matches!(served, Err(ServeError::Folder(UnfinishedError::Unfinished { .. }))));
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

/// Everything in a folder, by path.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let mut all: Vec<_> = entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            let within = if path.is_dir() { files(&path) } else { vec![] };
            [path].into_iter().chain(within)
        })
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_fails_leaves_all_as_it_was_and_the_corrected_command_runs() {
    let dir = tempfile::tempdir().unwrap();
    // Before anything is made.
    let mut wrong = options(dir.path());
    wrong.labels = vec!["good".into(), "good".into()];
    assert!(init(&wrong, &Clock::system()).await.is_err());
    assert_eq!(files(dir.path()), [] as [std::path::PathBuf; 0]);

    // With half of it made: the root key of another hub is in the way, made after the backup key.
    let right = options(dir.path());
    std::fs::create_dir_all(&right.data).unwrap();
    std::fs::create_dir_all(&right.offline_keys).unwrap();
    let of_another = right.offline_keys.join("dev-root.pk8");
    std::fs::File::create(&of_another).unwrap();
    let before = files(dir.path());
    let error = init(&right, &Clock::system()).await.unwrap_err();
    assert!(error.to_string().contains("dev-root.pk8"), "{error}");
    assert_eq!(files(dir.path()), before, "its folders and the other hub's key stay");

    std::fs::remove_file(&of_another).unwrap();
    init(&right, &Clock::system()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_never_serve_the_same_folder() {
    let rig = Rig::start().await;
    let second = Box::pin(Hub::start(rig.config.clone(), Clock::system())).await;
    assert!(matches!(second, Err(ServeError::Locked { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hub_is_made_or_served_with_a_clock_that_is_certainly_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let flat_battery = Clock::manual(UnixMillis(1_104_537_600_000));
    let refused = init(&options, &flat_battery).await.unwrap_err();
    assert!(refused.to_string().contains("2005-01-01"), "{refused}");
    assert!(!options.data.exists());
    let now = Clock::system().now();
    let config = init(&options, &Clock::manual(now)).await.unwrap();
    keys::check_clock(&config, now).unwrap();
    // Off for a year, or ahead: it may be right.
    keys::check_clock(&config, UnixMillis(now.0 + 365 * 86_400_000)).unwrap();
    let yesterday = keys::check_clock(&config, UnixMillis(now.0 - 86_400_000)).unwrap_err();
    assert!(yesterday.to_string().contains("--clock-is-right"), "{yesterday}");
}
