//! A backup brings the hub back, and a broken one is not taken for one.

use std::path::Path;

use fleetloop_protocol::api::datasets::Split;
use fleetloop_protocol::sample::Selection;

use super::testing::{Hub, import, picture};
use crate::cli::backup::check;
use crate::store::{Store, samples, tokens};

fn write(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

async fn full_hub() -> Hub {
    let hub = Hub::new().await;
    write(&hub.dir.path().join("admin.toml"), b"url = \"x\"\n");
    write(&hub.dir.path().join("pki/ca.key"), b"secret");
    write(&hub.dir.path().join("tuf/dev/timestamp.json"), b"{}");
    write(&hub.dir.path().join("tuf/dev/1.root.json"), b"{}");
    write(&hub.dir.path().join("tuf/dev/2.snapshot.json.tmp"), b"half");
    hub.post("/api/v1/samples/import", &import(Split::Train, 0, &["boot", "bag"])).await;
    let mut device = hub.device("dev-a", "press 7").await;
    hub.sample(&mut device, &picture(9), Selection::Random { rate: 0.1 }).await;
    hub
}

#[tokio::test]
async fn a_backup_opens_as_a_hub_with_all_that_was_in_it() {
    let hub = full_hub().await;
    let answer = hub.get("/api/v1/backup").await;
    assert_eq!(answer.status.as_u16(), 200);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub.tar");
    write(&file, &answer.body);
    let names = check(&file).unwrap();
    assert_eq!(
        names,
        [
            "hub.db",
            "admin.toml",
            "hub.toml",
            "pki/ca.key",
            "tuf/dev/timestamp.json",
            "tuf/dev/1.root.json"
        ]
    );
    let restored = dir.path().join("restored");
    tar::Archive::new(&answer.body[..]).unpack(&restored).unwrap();
    let store = Store::open(&restored).unwrap();
    let admin = hub.admin.clone();
    let (counts, holder) =
        store.read(move |c| Ok((samples::counts(c)?, tokens::holder(c, &admin)?))).await.unwrap();
    assert_eq!((counts.imported, counts.fleet), (2, 1));
    assert_eq!(holder.unwrap().name, "alice");
    let left: Vec<_> = std::fs::read_dir(hub.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("backup-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn payloads_come_along_when_asked_for() {
    let hub = full_hub().await;
    let answer = hub.get("/api/v1/backup?with_payloads=true").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub.tar");
    write(&file, &answer.body);
    let names = check(&file).unwrap();
    assert_eq!(names.iter().filter(|name| name.starts_with("payloads/")).count(), 3);
}

#[tokio::test]
async fn an_archive_that_was_cut_or_damaged_is_not_trusted() {
    let hub = full_hub().await;
    let answer = hub.get("/api/v1/backup").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub.tar");
    write(&file, &answer.body[..answer.body.len() / 2]);
    assert!(check(&file).is_err());
    let mut damaged = answer.body.to_vec();
    // Past the tar header and the first page of the database.
    damaged[512 + 4096..512 + 3 * 4096].fill(0xa5);
    write(&file, &damaged);
    let error = check(&file).unwrap_err();
    assert!(
        error.to_string().contains("make it again") || error.to_string().contains("database"),
        "{error:#}"
    );
    write(&file, b"");
    assert!(check(&file).is_err());
}
