//! `fleet-hub backup`: one file that a hub can be brought back from.
//!
//! The archive is encrypted by the hub, which has checked the database in it. It appears under its
//! name only when it has arrived whole: it is written beside it (0600), synced and, with `--key`,
//! opened and read to its end; then it is renamed. A power cut leaves the old file and perhaps a
//! `.part`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fleetloop_observe::output::Output;
use serde::Serialize;

use super::client::Client;
use super::human;
use super::progress::Progress;
use crate::backup::key::Identities;
use crate::backup::unpack::unpack;

/// Where the copy goes.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Needs the access file backup.toml: no other token may take the backup.

The archive is encrypted to the key that 'fleet-hub init' wrote beside the offline keys (backup.key), \
or to the recipients in hub.toml. It holds the hub's database, CA, the keys it keeps online, its configuration and its release \
repository. It does not hold payloads (pictures) and artefacts (models, datasets) unless --with-payloads \
is given: they are files named by their content, never changed, so copying the two folders along with \
any tool is enough. It never holds the offline root key.\n\n\
To bring a hub back: fleet-hub restore --key FILE --data DIR ARCHIVE")]
pub struct Args {
    /// The archive to write (an encrypted tar); an older one of that name is replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Includes payloads and artefacts.
    #[arg(long)]
    with_payloads: bool,
    /// Opens the archive with this key and reads it to its end before it gets its name.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The archive.
    pub file: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// The files in it; none where it was not read back.
    pub entries: Option<Vec<String>>,
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
        let (file, size) = (s.file.display(), human::bytes(s.bytes));
        match &s.entries {
            Some(entries) => {
                format!("wrote {file}: {} files, {size}; read back and checked\n", entries.len())
            }
            None => format!("wrote {file}: {size}; not read back (that needs --key)\n"),
        }
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
    let entries = match &args.key {
        Some(key) => Some(unpack(part, &Identities::read(key)?, None, |_| ())?.entries),
        None => None,
    };
    std::fs::rename(part, &args.out)
        .with_context(|| format!("cannot put backup {} in place", args.out.display()))?;
    sync_folder(&args.out).with_context(failed)?;
    Ok(Summary { file: args.out.clone(), bytes, entries })
}

fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
