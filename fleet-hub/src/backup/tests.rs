//! A backup brings the hub back, a broken one is not taken for one, and only the right and the key
//! open it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::Method;
use fleetloop_protocol::api::Role;
use fleetloop_protocol::api::datasets::Split;
use fleetloop_protocol::sample::Selection;

use super::key::{self, Identities};
use super::restore::{RestoreError, RestoreOptions, Restored, restore};
use super::unpack::{UnpackError, unpack};
use crate::api::testing::{Hub, NOW, picture};
use crate::clock::Clock;
use crate::store::tokens::{self, Shown};
use crate::store::{Store, samples};
use crate::unfinished::UnfinishedError;

fn write(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

/// A hub with something of everything, its backup key and the token that may take a backup.
struct Backed {
    hub: Hub,
    outside: tempfile::TempDir,
    token: String,
}

impl Backed {
    async fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let recipient = key::make(outside.path()).unwrap();
        let hub = Hub::with(|config| config.backup_recipients = vec![recipient]).await;
        let data = hub.dir.path();
        write(&data.join("admin.toml"), b"url = \"x\"\n");
        write(&data.join("pki/ca.key"), b"secret");
        write(&data.join("tuf/dev/timestamp.json"), b"{}");
        write(&data.join("tuf/dev/1.root.json"), b"{}");
        write(&data.join("tuf/dev/2.snapshot.json.tmp"), b"half");
        hub.import(Split::Train, 0, &["boot", "bag"]).await;
        let mut device = hub.device("dev-a", "press 7").await;
        hub.sample(&mut device, &picture(9), Selection::Random { rate: 0.1 }).await;
        let token = hub
            .state
            .store
            .write(|tx| tokens::create(tx, "keeper", Role::Backup, "t", NOW))
            .await
            .unwrap();
        Self { hub, outside, token }
    }

    fn key(&self) -> PathBuf {
        self.outside.path().join(key::KEY_FILE)
    }

    async fn fetch(&self, path: &str) -> Vec<u8> {
        let answer = self.hub.ask(Method::GET, &self.token, path, Body::empty()).await;
        assert_eq!(answer.status.as_u16(), 200);
        answer.body.to_vec()
    }

    /// The archive as a file.
    async fn archive(&self, path: &str) -> PathBuf {
        let file = self.outside.path().join("hub.tar.age");
        write(&file, &self.fetch(path).await);
        file
    }

    async fn restore(&self, archive: &Path) -> Result<Restored, RestoreError> {
        let options = RestoreOptions {
            archive: archive.to_owned(),
            key: self.key(),
            data: self.outside.path().join("restored"),
        };
        restore(&options, &Clock::manual(NOW), |_| ()).await
    }
}

#[tokio::test]
async fn a_backup_opens_as_a_hub_with_all_that_was_in_it_for_its_owner_only() {
    let backed = Backed::new().await;
    let archive = backed.archive("/api/v1/backup").await;
    let entries = unpack(&archive, &Identities::read(&backed.key()).unwrap(), None, |_| ());
    assert_eq!(
        entries.unwrap().entries,
        [
            "hub.db",
            "admin.toml",
            "hub.toml",
            "pki/accepted-ca.pem",
            "pki/assignment.pk8",
            "pki/ca.key",
            "pki/ca.pem",
            "pki/hub-client.pem",
            "pki/receipt.pk8",
            "pki/server.pem",
            "tuf/dev/timestamp.json",
            "tuf/dev/1.root.json"
        ]
    );
    let restored = backed.restore(&archive).await.unwrap();
    assert_eq!((restored.backup_made_at, restored.payloads_missing), (NOW, 3));
    let data = backed.outside.path().join("restored");
    for name in ["hub.db", "hub.toml", "admin.toml", "pki/ca.key"] {
        let mode = std::fs::metadata(data.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let store = Store::open(&data).unwrap();
    let admin = backed.hub.admin.clone();
    let (counts, holder) = store
        .read(move |c| Ok((samples::counts(c)?, tokens::look_up(c, &admin, NOW)?)))
        .await
        .unwrap();
    assert_eq!((counts.imported, counts.fleet), (2, 1));
    assert!(matches!(holder, Shown::Live(holder) if holder.name == "alice"));
    let left: Vec<_> = std::fs::read_dir(backed.hub.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("backup-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn payloads_come_along_when_asked_for() {
    let backed = Backed::new().await;
    let archive = backed.archive("/api/v1/backup?with_payloads=true").await;
    let restored = backed.restore(&archive).await.unwrap();
    assert_eq!(restored.payloads_missing, 0);
    let payloads = backed.outside.path().join("restored/payloads");
    assert!(std::fs::read_dir(payloads).unwrap().count() > 0);
}

#[tokio::test]
async fn the_backup_is_a_right_of_its_own_and_an_admin_does_not_have_it() {
    let backed = Backed::new().await;
    backed.hub.get("/api/v1/backup").await.error(403);
    let status = backed.hub.ask(Method::GET, &backed.token, "/api/v1/status", Body::empty()).await;
    status.error(403);
}

#[tokio::test]
async fn no_secret_stands_in_the_archive_in_clear_and_another_key_opens_nothing() {
    let backed = Backed::new().await;
    let archive = backed.fetch("/api/v1/backup").await;
    for secret in [&b"secret"[..], b"SQLite format 3", b"admin.toml"] {
        assert!(!archive.windows(secret.len()).any(|bytes| bytes == secret));
    }
    let file = backed.archive("/api/v1/backup").await;
    let other = tempfile::tempdir().unwrap();
    key::make(other.path()).unwrap();
    let other = Identities::read(&other.path().join(key::KEY_FILE)).unwrap();
    assert!(matches!(unpack(&file, &other, None, |_| ()), Err(UnpackError::Closed { .. })));
}

#[tokio::test]
async fn without_a_recipient_no_backup_is_made() {
    let hub = Hub::new().await;
    let token = hub
        .state
        .store
        .write(|tx| tokens::create(tx, "keeper", Role::Backup, "t", NOW))
        .await
        .unwrap();
    let answer = hub.ask(Method::GET, &token, "/api/v1/backup", Body::empty()).await;
    assert!(answer.error(409).message.contains("backup_recipients"));
}

#[tokio::test]
async fn an_archive_that_was_cut_or_damaged_is_not_trusted_and_leaves_no_hub() {
    let backed = Backed::new().await;
    let whole = backed.fetch("/api/v1/backup").await;
    let identities = Identities::read(&backed.key()).unwrap();
    let file = backed.outside.path().join("broken");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let cuts = [0, 10, whole.len() / 2, whole.len() - 1].map(|end| whole[..end].to_vec());
    for bytes in cuts.into_iter().chain([damaged.clone()]) {
        write(&file, &bytes);
        assert!(unpack(&file, &identities, None, |_| ()).is_err(), "{} bytes", bytes.len());
    }
    write(&file, &damaged);
    assert!(matches!(backed.restore(&file).await, Err(RestoreError::Archive(_))));
    write(&file, &whole);
    let again = backed.restore(&file).await;
    assert!(
        matches!(again, Err(RestoreError::Folder(UnfinishedError::Unfinished { .. }))),
        "what the first one left is no hub"
    );
}
