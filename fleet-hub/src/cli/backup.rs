//! `fleet-hub backup`: one file that a hub can be brought back from.
//!
//! The archive appears under its name only when it is whole and was read back: it is written
//! beside it (0600), synced, its entries are listed and the copy of the database in it is opened
//! and checked; then it is renamed. A power cut leaves the old file and perhaps a `.part`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fleetloop_observe::output::Output;
use rusqlite::OpenFlags;
use serde::Serialize;

use super::client::Client;
use super::human;
use super::progress::Progress;
use crate::store::DATABASE;

/// Where the copy goes.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The archive holds the hub's database, CA, the keys it keeps online, its configuration and its release \
repository. It does not hold payloads (pictures) and artefacts (models, datasets) unless --with-payloads \
is given: they are files named by their content, never changed, so copying the two folders along with \
any tool is enough. It never holds the offline root key.\n\n\
To bring a hub back, unpack the archive into an empty data directory, copy payloads and artefacts \
beside it and run 'fleet-hub serve --data DIR'.")]
pub struct Args {
    /// The archive to write (tar); an older one of that name is replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Includes payloads and artefacts.
    #[arg(long)]
    with_payloads: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The archive.
    pub file: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// The files in it.
    pub entries: Vec<String>,
}

/// Writes and checks a backup.
///
/// # Errors
/// The hub was not reached or refused, the file cannot be written, or what arrived is not whole.
pub async fn run(client: &Client, output: Output, args: Args) -> anyhow::Result<()> {
    let mut part = args.out.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let result = fetch(client, &args, &part).await;
    if result.is_err() {
        // What is half written is worth nothing; the error that matters is the first.
        let _ = std::fs::remove_file(&part);
    }
    let summary = result?;
    output.print(&summary, |s| {
        let (count, size) = (s.entries.len(), human::bytes(s.bytes));
        format!("wrote {}: {count} files, {size}; read back and checked\n", s.file.display())
    })
}

async fn fetch(client: &Client, args: &Args, part: &Path) -> anyhow::Result<Summary> {
    let failed = || format!("cannot write backup {}", part.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .with_context(failed)?;
    // A `.part` from before keeps its mode otherwise.
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    file.set_permissions(owner_only).with_context(failed)?;
    let path = if args.with_payloads { "/backup?with_payloads=true" } else { "/backup" };
    let mut download = client.stream("make a backup", path).await?;
    let mut progress = Progress::bytes("backup", download.len_bytes());
    let mut bytes = 0;
    while let Some(piece) = download.next().await? {
        file.write_all(&piece).with_context(failed)?;
        bytes += piece.len() as u64;
        progress.add(piece.len() as u64);
    }
    progress.finish();
    file.sync_all().with_context(failed)?;
    drop(file);
    let entries = check(part)?;
    std::fs::rename(part, &args.out)
        .with_context(|| format!("cannot put backup {} in place", args.out.display()))?;
    sync_folder(&args.out).with_context(failed)?;
    Ok(Summary { file: args.out.clone(), bytes, entries })
}

fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads an archive to its end and opens the database in it. Returns the names of its files.
///
/// # Errors
/// The archive ends early, or the database is missing or damaged.
pub fn check(archive: &Path) -> anyhow::Result<Vec<String>> {
    let failed = || format!("cannot trust backup {}; make it again", archive.display());
    let mut tar = tar::Archive::new(File::open(archive).with_context(failed)?);
    let mut names = Vec::new();
    let mut database = None;
    for entry in tar.entries().with_context(failed)? {
        let mut entry = entry.with_context(failed)?;
        let name = entry.path().with_context(failed)?.display().to_string();
        if name == DATABASE {
            // Beside the archive, not in /tmp: it is as secret and as large as the archive.
            let folder = archive.parent().filter(|dir| !dir.as_os_str().is_empty());
            let copy = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
                .with_context(failed)?;
            let mut file = copy.as_file();
            io::copy(&mut entry, &mut file).with_context(failed)?;
            database = Some(copy);
        } else {
            io::copy(&mut entry, &mut io::sink()).with_context(failed)?;
        }
        names.push(name);
    }
    let Some(copy) = database else {
        bail!("cannot trust backup {}: it holds no {DATABASE}", archive.display());
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection =
        rusqlite::Connection::open_with_flags(copy.path(), flags).with_context(failed)?;
    let verdict: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .with_context(failed)?;
    if verdict != "ok" {
        bail!("cannot trust backup {}: its database says {verdict:?}", archive.display());
    }
    Ok(names)
}
