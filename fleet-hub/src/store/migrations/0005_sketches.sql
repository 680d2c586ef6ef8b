-- What devices met and what their models made of it, counted. Encodings: see store/mod.rs; a sketch
-- is protocol's Sketch, as JSON; an hour is counted from 1970, by the hub's clock.

CREATE TABLE sketch (
    id              INTEGER PRIMARY KEY,
    hour            INTEGER NOT NULL,
    device          TEXT NOT NULL REFERENCES device (id),
    model           BLOB NOT NULL REFERENCES model (bundle),
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
