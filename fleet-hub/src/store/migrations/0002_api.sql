-- Who may call the API, what samples show, frozen datasets. Encodings: see store/mod.rs.

CREATE TABLE api_token (
    -- SHA-256 of the token's text; the text itself is nowhere
    sha256          BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    name            TEXT NOT NULL,
    role            TEXT NOT NULL CHECK (role IN ('admin', 'annotator', 'worker')),
    created_at_ms   INTEGER NOT NULL
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
    label           INTEGER NOT NULL REFERENCES label_name (idx),
    given_by        TEXT NOT NULL,
    given_at_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX label_by_sample ON label (sample, id);

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
