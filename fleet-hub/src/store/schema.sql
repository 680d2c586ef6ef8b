-- All tables of the hub's database. Encodings: see store/mod.rs.
-- A change of the tables is a change of SCHEMA_VERSION there.

-- Devices, enrolment, samples, gaps, refusals, reports, audit.

CREATE TABLE device (
    id              TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('enrolled', 'revoked')),
    signing_key     BLOB NOT NULL CHECK (length(signing_key) = 32),
    -- what enrolment gave, for the same two keys get the same answer again; and what renewal gave
    certificate_pem TEXT NOT NULL,
    renewed_pem     TEXT,
    -- of the newest certificate
    certificate_ends_ms INTEGER NOT NULL,
    -- the device whose place it took; a device is replaced once
    replaces        TEXT UNIQUE REFERENCES device (id),
    agent_version   TEXT NOT NULL,
    enrolled_at_ms  INTEGER NOT NULL,
    revoked_at_ms   INTEGER,
    -- the device that took its place, or who revoked it
    revoked_by      TEXT,
    last_seen_ms    INTEGER,
    -- the last signed report and telemetry, as JSON of the protocol's types
    reported        TEXT,
    telemetry       TEXT,
    -- who speaks as this device: clones::Start, as JSON; and since when there are two of them
    starts          TEXT,
    held_since_ms   INTEGER,
    -- messages refused since enrolment
    refusals        INTEGER NOT NULL DEFAULT 0,
    -- messages of its outbox that were brought in a file
    collected       INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE enrolment_token (
    secret_sha256   BLOB PRIMARY KEY CHECK (length(secret_sha256) = 32),
    name            TEXT NOT NULL,
    -- the device whose place the token's device takes
    replaces        TEXT REFERENCES device (id),
    created_by      TEXT NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    expires_at_ms   INTEGER NOT NULL,
    -- set once: by whom it was used, and with which two keys (SHA-256 over both)
    used_at_ms      INTEGER,
    device          TEXT REFERENCES device (id),
    keys_sha256     BLOB
) STRICT;

-- Everything that can be learned from: sent by a device ('fleet') or brought ('import').
CREATE TABLE sample (
    -- order of arrival
    id              INTEGER PRIMARY KEY,
    -- its name: the header's body digest, or what follows from an imported payload
    sample          BLOB NOT NULL UNIQUE CHECK (length(sample) = 32),
    grp             TEXT NOT NULL CHECK (grp IN ('import', 'fleet')),
    -- identity of a fleet sample
    device          TEXT REFERENCES device (id),
    epoch           INTEGER,
    sequence        INTEGER,
    -- what its header says
    previous        BLOB,
    captured_at_ms  INTEGER,
    clock_synced    INTEGER,
    model           BLOB,
    config          BLOB,
    selection       TEXT,
    predictions     TEXT NOT NULL DEFAULT '[]',
    -- the payload: SHA-256 of its bytes; salt is what the header's commitment was made with
    payload         BLOB NOT NULL CHECK (length(payload) = 32),
    payload_len     INTEGER NOT NULL,
    media_type      TEXT NOT NULL,
    salt            BLOB,
    -- evidence: the signed header as received, the signed receipt as sent
    envelope        BLOB,
    receipt         BLOB,
    -- of an imported one: what the newest of its imports says, see store/imports.rs
    split           TEXT CHECK (split IN ('train', 'gate')),
    source          TEXT,
    -- why it is in no dataset: see store/clones.rs
    held            TEXT CHECK (held IN ('clone', 'collected', 'dropped')),
    stored_at_ms    INTEGER NOT NULL,
    -- a tombstone: payload, salt and predictions are erased, what proves it stays
    removed_at_ms   INTEGER,
    removed_by      TEXT,
    removed_reason  TEXT,
    -- the import that took it along when it was removed; importing the picture again revives it
    removed_import  INTEGER REFERENCES import (id),
    UNIQUE (device, epoch, sequence),
    CHECK (grp = 'import' OR (device IS NOT NULL AND epoch IS NOT NULL AND sequence IS NOT NULL
        AND envelope IS NOT NULL AND receipt IS NOT NULL))
) STRICT;
CREATE INDEX sample_by_payload ON sample (payload);
CREATE INDEX sample_by_group ON sample (grp, id);

-- Labelled pictures that were imported together.
CREATE TABLE import (
    id              INTEGER PRIMARY KEY,
    -- of what it says: the same again is the same import
    digest          BLOB NOT NULL CHECK (length(digest) = 32),
    source          TEXT NOT NULL,
    split           TEXT NOT NULL CHECK (split IN ('train', 'gate')),
    imported_by     TEXT NOT NULL,
    imported_at_ms  INTEGER NOT NULL,
    removed_at_ms   INTEGER,
    removed_by      TEXT,
    removed_reason  TEXT
) STRICT;

-- Each picture is one sample, however many imports have it.
CREATE TABLE import_sample (
    sample          INTEGER NOT NULL REFERENCES sample (id),
    import          INTEGER NOT NULL REFERENCES import (id),
    PRIMARY KEY (sample, import)
) STRICT, WITHOUT ROWID;
CREATE INDEX import_sample_by_import ON import_sample (import);

-- Payloads that were decoded in full, for an import or a freeze; `fault` says why one cannot be. A row
-- goes with its file. One that no sample names is of an import that did not come: it is erased.
CREATE TABLE decoded (
    payload         BLOB PRIMARY KEY CHECK (length(payload) = 32),
    payload_len     INTEGER NOT NULL,
    media_type      TEXT NOT NULL,
    fault           TEXT,
    at_ms           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE gap (
    digest          BLOB PRIMARY KEY CHECK (length(digest) = 32),
    device          TEXT NOT NULL REFERENCES device (id),
    epoch           INTEGER NOT NULL,
    from_sequence   INTEGER NOT NULL,
    to_sequence     INTEGER NOT NULL,
    -- what its first header named as previous, and the digest of its last: links of the chain
    before          BLOB NOT NULL CHECK (length(before) = 32),
    after           BLOB NOT NULL CHECK (length(after) = 32),
    reason          TEXT NOT NULL,
    envelope        BLOB NOT NULL,
    receipt         BLOB NOT NULL,
    stored_at_ms    INTEGER NOT NULL,
    UNIQUE (device, epoch, from_sequence, to_sequence)
) STRICT;
CREATE INDEX gap_by_end ON gap (device, epoch, to_sequence);

-- Payloads to be erased: no sample has them any more. A row goes when its file is gone.
CREATE TABLE erasure (
    payload         BLOB PRIMARY KEY CHECK (length(payload) = 32)
) STRICT, WITHOUT ROWID;

-- Verified messages whose identity is taken by another digest. Bounded for each device; its newest are
-- kept.
CREATE TABLE quarantine (
    id              INTEGER PRIMARY KEY,
    message         BLOB NOT NULL UNIQUE CHECK (length(message) = 32),
    device          TEXT NOT NULL REFERENCES device (id),
    identity        TEXT NOT NULL,
    stored_digest   BLOB NOT NULL,
    found_digest    BLOB NOT NULL,
    envelope        BLOB NOT NULL,
    at_ms           INTEGER NOT NULL
) STRICT;
CREATE INDEX quarantine_by_device ON quarantine (device, id);

-- 'repeated', 'quarantined', 'refused' and refusals by reason: 'refused.malformed' …
CREATE TABLE counter (
    name            TEXT PRIMARY KEY,
    value           INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    id              INTEGER PRIMARY KEY,
    at_ms           INTEGER NOT NULL,
    who             TEXT NOT NULL,
    action          TEXT NOT NULL,
    object          TEXT NOT NULL,
    detail          TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_who ON audit (who, at_ms);

-- Who may call the API, what samples show, frozen datasets.

CREATE TABLE api_token (
    id              TEXT PRIMARY KEY,
    -- SHA-256 of the token's text; the text itself is nowhere
    sha256          BLOB NOT NULL UNIQUE CHECK (length(sha256) = 32),
    name            TEXT NOT NULL,
    role            TEXT NOT NULL CHECK (role IN ('admin', 'annotator', 'worker', 'backup')),
    created_by      TEXT NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    -- none: it does not end by itself
    expires_at_ms   INTEGER,
    revoked_at_ms   INTEGER,
    -- written once a minute
    last_used_at_ms INTEGER,
    replaced_by     TEXT REFERENCES api_token (id) ON DELETE SET NULL
) STRICT;

-- Logins of the web page.
CREATE TABLE session (
    -- SHA-256 of the cookie's value
    sha256          BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    token           BLOB NOT NULL REFERENCES api_token (sha256) ON DELETE CASCADE,
    created_at_ms   INTEGER NOT NULL,
    expires_at_ms   INTEGER NOT NULL
) STRICT;
CREATE INDEX session_by_expiry ON session (expires_at_ms);

-- The labels; `idx` is what models learn. Never removed or moved.
CREATE TABLE label_name (
    idx             INTEGER PRIMARY KEY CHECK (idx >= 0 AND idx < 65536),
    name            TEXT NOT NULL UNIQUE
) STRICT;

-- Append-only: a sample's label is its newest row, the older ones are its history.
CREATE TABLE label (
    id              INTEGER PRIMARY KEY,
    sample          INTEGER NOT NULL REFERENCES sample (id) ON DELETE CASCADE,
    -- NULL: what was said before is withdrawn
    label           INTEGER REFERENCES label_name (idx),
    given_by        TEXT NOT NULL,
    given_at_ms     INTEGER NOT NULL,
    -- the import that gave it; it counts no more when that is removed
    import          INTEGER REFERENCES import (id)
) STRICT;
CREATE INDEX label_by_sample ON label (sample, id);

-- What samples show now: not what was withdrawn, nothing of samples that were removed, nothing that a
-- removed import gave. `id` is the label's: of two the greater one is newer.
CREATE VIEW current_label AS
    SELECT l.id, l.sample, l.label, l.given_by, l.given_at_ms FROM label l
    WHERE l.label IS NOT NULL
      AND l.id = (SELECT max(newest.id) FROM label newest WHERE newest.sample = l.sample
        AND NOT EXISTS (SELECT 1 FROM import i
            WHERE i.id = newest.import AND i.removed_at_ms IS NOT NULL))
      AND EXISTS (SELECT 1 FROM sample s WHERE s.id = l.sample AND s.removed_at_ms IS NULL);

-- Frozen datasets; the canonical bytes are an artefact of that digest.
CREATE TABLE dataset (
    digest          BLOB PRIMARY KEY CHECK (length(digest) = 32),
    name            TEXT NOT NULL,
    train           INTEGER NOT NULL,
    gate            INTEGER NOT NULL,
    frozen_by       TEXT NOT NULL,
    frozen_at_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX dataset_by_time ON dataset (frozen_at_ms);

-- Jobs, models, releases, rollouts, orders.

CREATE TABLE job (
    id              INTEGER PRIMARY KEY,
    kind            TEXT NOT NULL CHECK (kind IN ('train', 'evaluate')),
    model           TEXT NOT NULL,
    version         INTEGER NOT NULL,
    -- protocol's JobSpec, as JSON
    spec            TEXT NOT NULL,
    -- the pure state of jobs::lease, as JSON; `state` is its name, for lists and for the index
    state           TEXT NOT NULL CHECK (state IN ('queued', 'leased', 'held', 'done', 'failed')),
    phase           TEXT NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    progress        TEXT,
    requested_by    TEXT NOT NULL,
    requested_at_ms INTEGER NOT NULL
) STRICT;
-- A version is given once, even to a job that fails.
CREATE UNIQUE INDEX job_version ON job (model, version) WHERE kind = 'train';
CREATE INDEX job_by_state ON job (state, id);

-- Bundles whose manifest and files are all in the artefact store.
CREATE TABLE model (
    bundle          BLOB PRIMARY KEY CHECK (length(bundle) = 32),
    name            TEXT NOT NULL,
    version         INTEGER NOT NULL,
    target          TEXT NOT NULL,
    manifest_len    INTEGER NOT NULL,
    -- how many it has
    labels          INTEGER NOT NULL,
    base            BLOB,
    dataset         BLOB,
    run_record      BLOB,
    job             INTEGER REFERENCES job (id),
    -- protocol's Verdict, as JSON; and the reports it was made from, as artefacts
    verdict         TEXT,
    created_by      TEXT NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    UNIQUE (name, version)
) STRICT;

-- What a bundle made of a dataset's gate items. The report's bytes are an artefact of `digest`.
CREATE TABLE report (
    bundle          BLOB NOT NULL REFERENCES model (bundle),
    dataset         BLOB NOT NULL,
    digest          BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    job             INTEGER REFERENCES job (id),
    -- the name of the token that brought it
    worker          TEXT NOT NULL,
    runtime         TEXT NOT NULL,
    items           INTEGER NOT NULL,
    -- items whose most probable class is the label
    correct         INTEGER NOT NULL,
    at_ms           INTEGER NOT NULL,
    state           TEXT NOT NULL DEFAULT 'counts'
        CHECK (state IN ('counts', 'disputed', 'rejected')),
    -- the report that it contradicted when it came
    against         BLOB,
    -- who decided, when an operator had to
    decided_by      TEXT,
    decided_at_ms   INTEGER,
    reason          TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (bundle, dataset, digest)
) STRICT, WITHOUT ROWID;

-- A release is intended first, then in the repository, then confirmed here: see release/mod.rs.
CREATE TABLE release (
    channel         TEXT NOT NULL,
    target          TEXT NOT NULL,
    bundle          BLOB NOT NULL REFERENCES model (bundle),
    state           TEXT NOT NULL CHECK (state IN ('intended', 'released')),
    released_by     TEXT NOT NULL,
    released_at_ms  INTEGER NOT NULL,
    PRIMARY KEY (channel, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX release_by_bundle ON release (bundle);

CREATE TABLE rollout (
    id              INTEGER PRIMARY KEY,
    bundle          BLOB NOT NULL REFERENCES model (bundle),
    target          TEXT NOT NULL,
    -- protocol's Phase, as JSON; `active` is 1 while it can still change
    phase           TEXT NOT NULL,
    active          INTEGER CHECK (active = 1),
    -- 1: to an earlier bundle, all devices at once
    back            INTEGER NOT NULL CHECK (back IN (0, 1)),
    started_by      TEXT NOT NULL,
    started_at_ms   INTEGER NOT NULL,
    -- NULLs are distinct: any number that ended, one that has not
    UNIQUE (active)
) STRICT;

CREATE TABLE rollout_member (
    rollout         INTEGER NOT NULL REFERENCES rollout (id),
    position        INTEGER NOT NULL,
    device          TEXT NOT NULL REFERENCES device (id),
    before_bundle   BLOB,
    before_target   TEXT,
    -- protocol's MemberState, as JSON
    state           TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    -- when it was given its last order; NULL before the first
    asked_at_ms     INTEGER,
    PRIMARY KEY (rollout, position),
    UNIQUE (rollout, device),
    CHECK ((before_bundle IS NULL) = (before_target IS NULL))
) STRICT, WITHOUT ROWID;

-- The last order of each device; `generation` counts them.
CREATE TABLE desired (
    device          TEXT PRIMARY KEY REFERENCES device (id),
    generation      INTEGER NOT NULL,
    bundle          BLOB,
    target          TEXT,
    at_ms           INTEGER NOT NULL,
    CHECK ((bundle IS NULL) = (target IS NULL))
) STRICT, WITHOUT ROWID;

-- What devices met and what their models made of it, counted. A sketch is protocol's Sketch, as JSON; an
-- hour is counted from 1970, by the hub's clock.

CREATE TABLE sketch (
    id              INTEGER PRIMARY KEY,
    hour            INTEGER NOT NULL,
    device          TEXT NOT NULL REFERENCES device (id),
    model           BLOB NOT NULL REFERENCES model (bundle),
    -- of the windows in it, together
    seconds         INTEGER NOT NULL,
    sketch          TEXT NOT NULL,
    UNIQUE (hour, device, model)
) STRICT;
CREATE INDEX sketch_by_device ON sketch (device, hour);

-- What a model met first, at any device: to compare with where its bundle says nothing. Never swept.
CREATE TABLE sketch_first (
    model           BLOB PRIMARY KEY REFERENCES model (bundle),
    from_hour       INTEGER NOT NULL,
    -- the last hour that was added
    to_hour         INTEGER NOT NULL,
    frames          INTEGER NOT NULL,
    sketch          TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The windows that each device sent last, by the digest of their signed body: a message that is
-- delivered again counts once.
CREATE TABLE telemetry_window (
    id              INTEGER PRIMARY KEY,
    device          TEXT NOT NULL REFERENCES device (id),
    digest          BLOB NOT NULL CHECK (length(digest) = 32),
    UNIQUE (device, digest)
) STRICT;
CREATE INDEX telemetry_window_by_age ON telemetry_window (device, id);

-- What the hub noticed and an operator should know, once for each kind, device and subject. Bounded:
-- see store/findings.
CREATE TABLE finding (
    id                  INTEGER PRIMARY KEY,
    -- a stable word of store/findings/kind.rs; severity is its rank, 0 notice, 1 warning, 2 alarm
    kind                TEXT NOT NULL,
    severity            INTEGER NOT NULL,
    -- none: about a worker or the hub itself
    device              TEXT REFERENCES device (id),
    subject             TEXT NOT NULL,
    -- what was seen the first time
    detail              TEXT NOT NULL,
    count               INTEGER NOT NULL,
    first_at_ms         INTEGER NOT NULL,
    last_at_ms          INTEGER NOT NULL,
    -- who has seen to it; none while it is open
    acknowledged_by     TEXT,
    acknowledged_at_ms  INTEGER,
    note                TEXT NOT NULL DEFAULT '',
    CHECK ((acknowledged_by IS NULL) = (acknowledged_at_ms IS NULL))
) STRICT;
CREATE UNIQUE INDEX finding_once ON finding (coalesce(device, ''), kind, subject);
CREATE INDEX finding_open ON finding (kind) WHERE acknowledged_at_ms IS NULL;

-- Restores of this hub from a backup; `report` is backup::restore's Restored, as JSON.
CREATE TABLE restore (
    id              INTEGER PRIMARY KEY,
    at_ms           INTEGER NOT NULL,
    report          TEXT NOT NULL
) STRICT;

-- Devices that this hub does not know and that its CA has certified: they enrolled after the backup
-- that this hub was restored from.
CREATE TABLE stranger (
    device              TEXT PRIMARY KEY,
    signing_key         BLOB NOT NULL CHECK (length(signing_key) = 32),
    certificate_ends_ms INTEGER NOT NULL,
    first_seen_ms       INTEGER NOT NULL,
    last_seen_ms        INTEGER NOT NULL
) STRICT;

-- Devices on a list that this hub signed before it was restored, and the device that showed it.
CREATE TABLE revoked_before (
    device          TEXT PRIMARY KEY,
    revoked_at_ms   INTEGER NOT NULL,
    shown_by        TEXT NOT NULL
) STRICT;
