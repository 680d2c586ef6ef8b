//! `fleet-hub sample collect`: brings what a device could not send, from the file that
//! `edge-agent outbox export` wrote.
//!
//! The file is sent in pieces of whole records. A piece that was sent is stored; the same file again sends
//! what is missing, so an interrupted collection is run again.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use fleetloop_observe::output::Output;
use fleetloop_observe::text::visible;
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::api::samples::{CollectRefused, CollectResponse};
use fleetloop_protocol::export::{HEAD_BYTES, Head, PIECE_BYTES, RECORD_HEAD_BYTES, RecordHead};

use super::client::{Client, query};
use super::progress::Progress;

/// What to bring.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The file that 'edge-agent outbox export' wrote.
    pub file: PathBuf,
    /// Takes in the samples of a device that a person revoked, and holds them until 'device keep'. Its
    /// id must be typed, and be the file's.
    #[arg(long, value_name = "DEVICE")]
    pub vouch: Option<DeviceId>,
}

/// Reads the file and sends it.
///
/// # Errors
/// The file is damaged or cut off, the hub refuses, or it refused some of the records.
pub async fn run(client: &Client, output: Output, args: Args) -> anyhow::Result<()> {
    let name = args.file.display().to_string();
    let cannot = || format!("cannot collect samples from {name}");
    let mut file = BufReader::new(File::open(&args.file).with_context(cannot)?);
    let mut line = Vec::new();
    file.by_ref().take(HEAD_BYTES as u64).read_until(b'\n', &mut line).with_context(cannot)?;
    let head = Head::parse(&line).with_context(cannot)?;
    if let Some(vouched) = args.vouch.as_ref().filter(|vouched| **vouched != head.device) {
        bail!("{}: it is the outbox of {}, not of {vouched}", cannot(), head.device);
    }
    let query = query(&[
        ("device", Some(head.device.to_string())),
        ("vouched", args.vouch.as_ref().map(|_| "true".to_owned())),
    ]);
    let mut progress = Progress::new("collecting", head.records);
    let (mut sum, mut sent) = (CollectResponse::default(), 0);
    while sent < head.records {
        let piece = Piece::read(&mut file, sent, head.records)
            .with_context(|| format!("{} after record {sent}; export it again", cannot()))?;
        let operation = format!("collect records {}..{} of {name}", sent + 1, sent + piece.records);
        let path = format!("/samples/collect{query}");
        let answer: CollectResponse = client.post_bytes(&operation, &path, piece.bytes).await?;
        sum.stored += answer.stored;
        sum.gaps += answer.gaps;
        sum.known += answer.known;
        sum.held += answer.held;
        let before = usize::try_from(sent)?;
        let refused = answer.refused.into_iter();
        sum.refused
            .extend(refused.map(|one| CollectRefused { record: before + one.record, ..one }));
        sent += piece.records;
        progress.add(piece.records);
    }
    progress.finish();
    ensure!(
        file.fill_buf().with_context(cannot)?.is_empty(),
        "{}: it has more than its {} records",
        cannot(),
        head.records
    );
    output.print(&sum, |sum| describe(sum, &head.device))?;
    let (refused, records) = (sum.refused.len(), head.records);
    ensure!(refused == 0, "{}: the hub refused {refused} of {records} records", cannot());
    Ok(())
}

/// Whole records, as many as fit a request.
struct Piece {
    bytes: Vec<u8>,
    records: u64,
}

impl Piece {
    /// The next records after the first `sent` of `of`.
    fn read(file: &mut BufReader<File>, sent: u64, of: u64) -> anyhow::Result<Self> {
        let mut piece = Self { bytes: Vec::new(), records: 0 };
        while sent + piece.records < of {
            // A request takes a record of any size; more than one only while they stay far below that.
            if piece.bytes.len() > PIECE_BYTES {
                break;
            }
            let mut head = [0; RECORD_HEAD_BYTES];
            whole(file, &mut head)?;
            piece.take(file, head, sent + piece.records + 1)?;
        }
        Ok(piece)
    }

    fn take(
        &mut self,
        file: &mut BufReader<File>,
        head: [u8; RECORD_HEAD_BYTES],
        at: u64,
    ) -> anyhow::Result<()> {
        let rest = RecordHead::decode(head, at)?.rest_len();
        self.bytes.extend_from_slice(&head);
        let begin = self.bytes.len();
        self.bytes.resize(begin + rest, 0);
        whole(file, &mut self.bytes[begin..])?;
        self.records += 1;
        Ok(())
    }
}

fn whole(file: &mut BufReader<File>, bytes: &mut [u8]) -> anyhow::Result<()> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => bail!("the file is cut off"),
        other => Ok(other?),
    }
}

fn describe(sum: &CollectResponse, device: &DeviceId) -> String {
    let mut text = String::new();
    for one in &sum.refused {
        text += &format!("record {}: refused: {}\n", one.record + 1, visible(&one.reason));
    }
    text += &format!(
        "collected {} samples and {} gaps of {device}; {} were stored before\n",
        sum.stored, sum.gaps, sum.known
    );
    if sum.held > 0 {
        text += &format!(
            "{} samples are held, in no dataset: decide with 'fleet-hub device epochs {device}' and \
             'fleet-hub device keep {device}'\n",
            sum.held
        );
    }
    text
}
