-- Keys inside are integers, ids that the API shows are UUIDs as text, times are microseconds since 1970 in UTC.

-- A runner that lives or lived. AUTOINCREMENT: an epoch is never given twice.
CREATE TABLE owners (
    epoch INTEGER PRIMARY KEY AUTOINCREMENT,
    joined_at INTEGER NOT NULL,
    left_at INTEGER
) STRICT;

-- Triggers and crons. AUTOINCREMENT: runs outlive a deleted cron and must not pass to the next one.
CREATE TABLE schedules (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('trigger', 'cron')),
    name TEXT NOT NULL,
    workflow TEXT NOT NULL,
    interval_us INTEGER,
    allow_concurrent INTEGER,
    expression TEXT,
    timezone TEXT,
    next_at INTEGER,
    enabled INTEGER NOT NULL,
    disabled_cause TEXT,
    last_at INTEGER,
    last_fired_at INTEGER,
    owner INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    cursor TEXT
) STRICT;
CREATE UNIQUE INDEX schedules_trigger ON schedules (name) WHERE kind = 'trigger';
CREATE UNIQUE INDEX schedules_cron ON schedules (workflow, expression, timezone) WHERE kind = 'cron';

-- What may be long stands last, so that the rest is read without it.
CREATE TABLE runs (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    status TEXT NOT NULL,
    schedule INTEGER,
    context_hash BLOB,
    unique_hash INTEGER NOT NULL,
    run_key TEXT,
    scheduled_at INTEGER,
    waits INTEGER NOT NULL,
    owner INTEGER,
    interruptions INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    error TEXT,
    context TEXT NOT NULL,
    final_context TEXT
) STRICT;
CREATE UNIQUE INDEX runs_id ON runs (id);
-- The truth of dedup: of one schedule, no two unfinished runs share a hash.
CREATE UNIQUE INDEX runs_hash ON runs (schedule, context_hash) WHERE unique_hash = 1 AND completed_at IS NULL;
-- A cron's slot starts at most one run.
CREATE UNIQUE INDEX runs_slot ON runs (schedule, scheduled_at) WHERE scheduled_at IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (row) WHERE completed_at IS NULL;
-- Both end in the row by themselves, which is the order of every listing.
CREATE INDEX runs_schedule ON runs (schedule) WHERE schedule IS NOT NULL;
CREATE INDEX runs_workflow ON runs (workflow);

CREATE TABLE tasks (
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    error TEXT,
    context TEXT,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE run_keys (
    schedule INTEGER NOT NULL,
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (schedule, key)
) STRICT, WITHOUT ROWID;

-- Polls with equal outcomes are one row.
CREATE TABLE ticks (
    row INTEGER PRIMARY KEY,
    schedule INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    min_us INTEGER NOT NULL,
    max_us INTEGER NOT NULL,
    sum_us INTEGER NOT NULL
) STRICT;
CREATE INDEX ticks_schedule ON ticks (schedule);
