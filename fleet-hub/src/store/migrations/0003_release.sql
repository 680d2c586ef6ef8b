-- Jobs, models, releases, rollouts, orders. Encodings: see store/mod.rs.

CREATE TABLE job (
    id              INTEGER PRIMARY KEY,
    model           TEXT NOT NULL,
    version         INTEGER NOT NULL,
    -- protocol's TrainJob, as JSON
    spec            TEXT NOT NULL,
    -- the pure state of jobs::lease, as JSON; `state` is its name, for lists and for the index
    state           TEXT NOT NULL CHECK (state IN ('queued', 'leased', 'done', 'failed')),
    phase           TEXT NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    progress        TEXT,
    requested_by    TEXT NOT NULL,
    requested_at_ms INTEGER NOT NULL,
    -- a version is given once, even to a job that fails
    UNIQUE (model, version)
) STRICT;
CREATE INDEX job_by_state ON job (state, id);

-- Bundles whose manifest and files are all in the artefact store.
CREATE TABLE model (
    bundle          BLOB PRIMARY KEY CHECK (length(bundle) = 32),
    name            TEXT NOT NULL,
    version         INTEGER NOT NULL,
    target          TEXT NOT NULL,
    manifest_len    INTEGER NOT NULL,
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
    digest          BLOB NOT NULL CHECK (length(digest) = 32),
    job             INTEGER REFERENCES job (id),
    runtime         TEXT NOT NULL,
    at_ms           INTEGER NOT NULL,
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
