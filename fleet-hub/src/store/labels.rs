//! What samples show. Append-only: a sample's label is its newest row and the older ones are its
//! history; a row without a label withdraws what was said before (the view `current_label` is what
//! holds now). The set of labels grows at its end; a label is never removed or moved, because its
//! index is what models learned.

use std::collections::{BTreeMap, HashSet};

use fleetloop_observe::text::has_hidden;
use fleetloop_protocol::api::labels::LabelSet;
use fleetloop_protocol::{DeviceId, Digest, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{StoreError, as_sql, audit, digest_at, from_sql};
use crate::labelling::{Kind, Seen, uncertainty};

/// The most labels a hub knows: what telemetry counts (`limits::TELEMETRY_CLASSES`).
pub const LABELS: usize = fleetloop_protocol::limits::TELEMETRY_CLASSES;

/// The longest label, in bytes.
pub const LABEL_BYTES: usize = 100;

/// The newest fleet samples that the queue looks at. An older one that nobody labelled is no longer
/// asked for; it can still be labelled by its digest.
const LOOK_BACK: i64 = 20_000;

/// Each device's samples of each kind that its doubt is judged by.
const RECENT: usize = 64;

/// The last labels by which a device's share is counted.
const LABELS_BACK: i64 = 500;

/// The hub's labels, by index.
///
/// # Errors
/// The database failed.
pub fn set(connection: &Connection) -> Result<LabelSet, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name FROM label_name ORDER BY idx")?;
    let labels = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(LabelSet { labels })
}

/// Extends the hub's labels to `wanted`, which must begin with those the hub has.
///
/// # Errors
/// [`StoreError::Conflict`] when one would be removed or moved; [`StoreError::Invalid`] for a
/// label that is empty, too long, twice in the list or holds characters that cannot be seen.
pub fn extend(tx: &Transaction<'_>, wanted: &LabelSet, who: &str) -> Result<(), StoreError> {
    let have = set(tx)?.labels;
    if !wanted.labels.starts_with(&have) {
        let what = format!(
            "cannot set the labels: the first {} must stay {}; a label is never removed or moved, add new ones at the end",
            have.len(),
            have.join(", ")
        );
        return Err(StoreError::Conflict { what });
    }
    check(&wanted.labels)?;
    for (idx, label) in wanted.labels.iter().enumerate().skip(have.len()) {
        tx.execute(
            "INSERT INTO label_name (idx, name) VALUES (?1, ?2)",
            params![idx as i64, label],
        )?;
        audit(tx, who, "label.add", label, &format!("index {idx}"))?;
    }
    Ok(())
}

/// Whether these can be a hub's labels.
///
/// # Errors
/// [`StoreError::Invalid`] names the first that cannot.
pub fn check(labels: &[String]) -> Result<(), StoreError> {
    let mut known: Vec<&str> = Vec::new();
    for label in labels {
        let bad = |why: &str| StoreError::Invalid {
            what: format!("cannot set the labels: {label:?} {why}"),
        };
        if label.trim().is_empty() || label.trim() != label || has_hidden(label) {
            return Err(bad(
                "is empty, has spaces around it or holds characters that cannot be seen",
            ));
        }
        if label.len() > LABEL_BYTES {
            return Err(bad(&format!("is longer than {LABEL_BYTES} bytes")));
        }
        if known.contains(&label.as_str()) {
            return Err(bad("is there twice"));
        }
        known.push(label);
    }
    if labels.len() > LABELS {
        let what = format!("cannot set the labels: {} are more than {LABELS}", labels.len());
        return Err(StoreError::Invalid { what });
    }
    Ok(())
}

/// The index of a label.
///
/// # Errors
/// [`StoreError::Invalid`] when the hub has no such label.
pub fn index(connection: &Connection, label: &str) -> Result<u16, StoreError> {
    let found: Option<u16> = connection
        .prepare_cached("SELECT idx FROM label_name WHERE name = ?1")?
        .query_row([label], |row| row.get(0))
        .optional()?;
    found.ok_or_else(|| StoreError::Invalid {
        what: format!("cannot use label {label:?}: it is none of the hub's labels; see 'fleet-hub label names'"),
    })
}

/// Says what a sample shows. The same label by the same person again changes nothing; any other
/// supersedes what was said before.
///
/// # Errors
/// [`StoreError::NotFound`] without such a sample, [`StoreError::Invalid`] without such a label.
pub fn give(
    tx: &Transaction<'_>,
    sample: Digest,
    label: &str,
    who: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let idx = index(tx, label)?;
    let id = living(tx, sample)?;
    let before = current(tx, id)?;
    if before.as_ref().is_some_and(|(label, by, _)| *label == idx && by == who) {
        return Ok(());
    }
    add(tx, id, Some(idx), who, None, now)?;
    let detail = match before {
        None => label.to_owned(),
        Some((_, by, was)) => format!("{label} (was {was}, by {by})"),
    };
    audit(tx, who, "label.set", &sample.to_string(), &detail)
}

/// Withdraws what was said of a sample: it has no label then, and its history stays. Without a label
/// nothing changes.
///
/// # Errors
/// [`StoreError::NotFound`] without such a sample; [`StoreError::Conflict`] when it was removed.
pub fn clear(
    tx: &Transaction<'_>,
    sample: Digest,
    who: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let id = living(tx, sample)?;
    let Some((_, by, was)) = current(tx, id)? else { return Ok(()) };
    add(tx, id, None, who, None, now)?;
    audit(tx, who, "label.clear", &sample.to_string(), &format!("was {was}, by {by}"))
}

/// Takes back what `who` said last of a sample: what was said before counts again. When somebody else
/// has said something since, or nobody anything, nothing changes.
///
/// # Errors
/// [`StoreError::NotFound`] without such a sample; [`StoreError::Conflict`] when it was removed.
pub fn take_back(
    tx: &Transaction<'_>,
    sample: Digest,
    who: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let id = living(tx, sample)?;
    let mut lines = history(tx, sample)?.into_iter();
    let Some(last) = lines.next().filter(|last| last.by == who) else { return Ok(()) };
    let before = lines.next().and_then(|before| before.label);
    let idx = before.as_deref().map(|label| index(tx, label)).transpose()?;
    add(tx, id, idx, who, None, now)?;
    let word = |label: Option<String>| label.unwrap_or_else(|| "no label".to_owned());
    let detail = format!("{} again (was {})", word(before), word(last.label));
    audit(tx, who, "label.undo", &sample.to_string(), &detail)
}

/// The row of a sample that was not removed.
fn living(tx: &Transaction<'_>, sample: Digest) -> Result<i64, StoreError> {
    let found: Option<(i64, bool)> = tx
        .prepare_cached("SELECT id, removed_at_ms IS NOT NULL FROM sample WHERE sample = ?1")?
        .query_row([sample.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match found {
        None => Err(super::samples::no_such(sample)),
        Some((_, true)) => {
            let what = format!("cannot label sample {sample}: it was removed");
            Err(StoreError::Conflict { what })
        }
        Some((id, false)) => Ok(id),
    }
}

/// What a sample shows now: index, by whom, name.
fn current(tx: &Transaction<'_>, id: i64) -> Result<Option<(u16, String, String)>, StoreError> {
    let found = tx
        .prepare_cached(
            "SELECT l.label, l.given_by, n.name FROM current_label l
             JOIN label_name n ON n.idx = l.label WHERE l.sample = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(found)
}

/// Adds a label row, of a person or of an import, without a look at what was there and without an audit
/// line of its own.
pub(super) fn add(
    tx: &Transaction<'_>,
    sample_id: i64,
    idx: Option<u16>,
    who: &str,
    import: Option<i64>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO label (sample, label, given_by, given_at_ms, import) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![sample_id, idx, who, as_sql(now.0), import])?;
    Ok(())
}

/// One line of a sample's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The label; none when the one before was withdrawn.
    pub label: Option<String>,
    /// Who gave or withdrew it.
    pub by: String,
    /// When.
    pub at: UnixMillis,
}

/// All labels a sample ever had, the newest first.
///
/// # Errors
/// The database failed.
pub fn history(connection: &Connection, sample: Digest) -> Result<Vec<Given>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT n.name, l.given_by, l.given_at_ms FROM label l
         LEFT JOIN label_name n ON n.idx = l.label JOIN sample s ON s.id = l.sample
         WHERE s.sample = ?1 ORDER BY l.id DESC",
    )?;
    let lines = statement
        .query_map([sample.as_bytes()], |row| {
            Ok(Given { label: row.get(0)?, by: row.get(1)?, at: UnixMillis(from_sql(row.get(2)?)) })
        })?
        .collect::<Result<_, _>>()?;
    Ok(lines)
}

/// What the labelling policy looks at.
#[derive(Debug, Clone, Default)]
pub struct QueueView {
    /// The hub's labels.
    pub labels: Vec<String>,
    /// Unlabelled samples of devices, one a picture.
    pub candidates: Vec<Seen>,
    /// Each device's last samples.
    pub recent: Vec<Seen>,
    /// The samples that the last labels were given to.
    pub labelled: Vec<Seen>,
    /// How many unlabelled pictures of devices there are, older ones included.
    pub waiting: u64,
}

const SEEN: &str = "s.sample, s.device, s.selection, s.predictions, s.stored_at_ms";

/// Whether somebody labelled the picture of sample `s`, be it this sample or another with the same
/// payload: a camera at a stopped belt sends one picture many times.
const KNOWN: &str = "EXISTS (SELECT 1 FROM current_label l JOIN sample same ON same.id = l.sample
    WHERE same.payload = s.payload)";

/// Gathers what the labelling policy looks at. A picture is a candidate once, as its newest sample,
/// however often it was sent, and not at all when it is labelled.
///
/// # Errors
/// The database failed.
pub fn queue_view(connection: &Connection) -> Result<QueueView, StoreError> {
    let labels = set(connection)?.labels;
    let waiting: i64 = connection.query_row(
        &format!(
            "SELECT count(DISTINCT s.payload) FROM sample s
             WHERE s.grp = 'fleet' AND s.removed_at_ms IS NULL AND s.held IS NULL AND NOT {KNOWN}"
        ),
        [],
        |row| row.get(0),
    )?;
    let mut view = QueueView { waiting: from_sql(waiting), ..QueueView::default() };
    let mut counts: BTreeMap<DeviceId, [usize; 2]> = BTreeMap::new();
    let mut pictures = HashSet::new();
    let sql = format!(
        "SELECT {SEEN}, {KNOWN}, s.payload
         FROM sample s WHERE s.grp = 'fleet' AND s.removed_at_ms IS NULL AND s.held IS NULL
         ORDER BY s.id DESC LIMIT ?1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([LOOK_BACK])?;
    while let Some(row) = rows.next()? {
        let seen = seen(row, labels.len())?;
        let count = &mut counts.entry(seen.device.clone()).or_default()
            [usize::from(seen.kind == Kind::Random)];
        if *count < RECENT {
            *count += 1;
            view.recent.push(seen.clone());
        }
        if !row.get::<_, bool>(5)? && pictures.insert(digest_at(row, 6)?) {
            view.candidates.push(seen);
        }
    }
    let sql = format!(
        "SELECT {SEEN} FROM (SELECT DISTINCT sample FROM
            (SELECT l.sample FROM label l JOIN sample s ON s.id = l.sample
             WHERE s.grp = 'fleet' AND l.label IS NOT NULL AND s.removed_at_ms IS NULL
             ORDER BY l.id DESC LIMIT ?1)) last
         JOIN sample s ON s.id = last.sample"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([LABELS_BACK])?;
    while let Some(row) = rows.next()? {
        view.labelled.push(seen(row, labels.len())?);
    }
    view.labels = labels;
    Ok(view)
}

fn seen(row: &Row<'_>, classes: usize) -> Result<Seen, StoreError> {
    let sample = digest_at(row, 0)?;
    let damaged = || StoreError::damaged(format_args!("sample {sample}"));
    let device: String = row.get(1)?;
    let selection: String = row.get(2)?;
    let selection = serde_json::from_str(&selection).map_err(|_| damaged())?;
    let predictions: Vec<_> =
        serde_json::from_str(&row.get::<_, String>(3)?).map_err(|_| damaged())?;
    Ok(Seen {
        sample,
        device: device.parse().map_err(|_| damaged())?,
        kind: match selection {
            fleetloop_protocol::sample::Selection::Uncertain { .. } => Kind::Uncertain,
            fleetloop_protocol::sample::Selection::Random { .. } => Kind::Random,
        },
        uncertainty: uncertainty(&selection, &predictions, classes),
        stored_at_ms: from_sql(row.get(4)?),
    })
}
