-- Devices, enrolment, samples, gaps, refusals, reports, audit. Encodings: see store/mod.rs.

CREATE TABLE device (
    id              TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('enrolled', 'revoked')),
    signing_key     BLOB NOT NULL CHECK (length(signing_key) = 32),
    certificate_pem TEXT NOT NULL,
    agent_version   TEXT NOT NULL,
    enrolled_at_ms  INTEGER NOT NULL,
    revoked_at_ms   INTEGER,
    last_seen_ms    INTEGER,
    -- the last signed report and telemetry, as JSON of the protocol's types
    reported        TEXT,
    telemetry       TEXT,
    -- messages refused since enrolment
    refusals        INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE enrolment_token (
    secret_sha256   BLOB PRIMARY KEY CHECK (length(secret_sha256) = 32),
    name            TEXT NOT NULL,
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
    -- its name: the header's body digest, or the digest of an imported record
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
    -- of an imported one
    split           TEXT CHECK (split IN ('train', 'gate')),
    source          TEXT,
    stored_at_ms    INTEGER NOT NULL,
    UNIQUE (device, epoch, sequence),
    CHECK (grp = 'import' OR (device IS NOT NULL AND epoch IS NOT NULL AND sequence IS NOT NULL
        AND envelope IS NOT NULL AND receipt IS NOT NULL))
) STRICT;
CREATE INDEX sample_by_payload ON sample (payload);
CREATE INDEX sample_by_group ON sample (grp, id);

CREATE TABLE gap (
    digest          BLOB PRIMARY KEY CHECK (length(digest) = 32),
    device          TEXT NOT NULL REFERENCES device (id),
    epoch           INTEGER NOT NULL,
    from_sequence   INTEGER NOT NULL,
    to_sequence     INTEGER NOT NULL,
    reason          TEXT NOT NULL,
    envelope        BLOB NOT NULL,
    receipt         BLOB NOT NULL,
    stored_at_ms    INTEGER NOT NULL,
    UNIQUE (device, epoch, from_sequence, to_sequence)
) STRICT;

-- Verified messages whose identity is taken by another digest. Bounded; the newest are kept.
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
