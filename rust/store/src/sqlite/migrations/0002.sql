-- A claim, and each look at the others, asks who lives: they are few, those that left may be many.
CREATE INDEX owners_living ON owners (epoch) WHERE left_at IS NULL;
-- An epoch that is in no row counts as one that left, and AUTOINCREMENT never gives it again.
DELETE FROM owners WHERE left_at IS NOT NULL AND epoch <= (SELECT max(epoch) FROM owners) - 100;
-- What pruning looks for, so that finding nothing costs nothing.
CREATE INDEX runs_completed ON runs (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX run_keys_expiry ON run_keys (expires_at) WHERE expires_at IS NOT NULL;
-- Attempts of a task that were cut off, and use up none of its retries.
ALTER TABLE tasks ADD COLUMN interrupted INTEGER NOT NULL DEFAULT 0;
-- Crons are read at every start and with every piece of news, beside triggers of which there may be a million.
CREATE INDEX schedules_crons ON schedules (row) WHERE kind = 'cron';
-- What holds of the file as a whole. After an upgrade nothing is forgotten for an hour: what is kept by default has changed.
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) SELECT 'spared_until', CAST((unixepoch('subsec') + 3600) * 1000000 AS INTEGER) WHERE EXISTS (SELECT 1 FROM owners);
-- Runs that nothing guarded when they were fired, for a trigger that is guarded since.
CREATE INDEX runs_unguarded ON runs (schedule, context_hash)
    WHERE unique_hash = 0 AND context_hash IS NOT NULL AND completed_at IS NULL;
-- A trigger's due times outlive who polls it: where its grid begins, when its owner took it over and until when what was due was heeded then,
-- and a wait with how long it was to be.
ALTER TABLE owners ADD COLUMN seen_at INTEGER;
ALTER TABLE schedules ADD COLUMN origin_at INTEGER;
ALTER TABLE schedules ADD COLUMN taken_at INTEGER;
ALTER TABLE schedules ADD COLUMN heeded_until INTEGER;
ALTER TABLE schedules ADD COLUMN not_before INTEGER;
ALTER TABLE schedules ADD COLUMN wait_us INTEGER;
-- The order in which runs that guard their hashes have ended, for fires that were decided before: of one transaction all share a number.
ALTER TABLE runs ADD COLUMN end_number INTEGER;
CREATE INDEX runs_ended ON runs (schedule, context_hash, end_number) WHERE end_number IS NOT NULL;
INSERT INTO meta (name, value) VALUES ('ends', 0);
-- A cron that a program declares is the one of its name, with its declaration; one that was registered by hand is known by its three.
ALTER TABLE schedules ADD COLUMN declared_as TEXT;
DROP INDEX schedules_cron;
CREATE INDEX schedules_cron ON schedules (workflow, expression, timezone) WHERE kind = 'cron';
CREATE INDEX schedules_cron_name ON schedules (name) WHERE kind = 'cron' AND name <> '';
CREATE UNIQUE INDEX schedules_declared ON schedules (name) WHERE kind = 'cron' AND declared_as IS NOT NULL;
-- How attempts ended, but for those that completed at once, which their tasks' rows tell. They outlive the rows of tasks that are undecided
-- again, and are in the order in which they were kept.
CREATE TABLE tries (
    row INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    task TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    owner INTEGER,
    started_at INTEGER,
    ended_at INTEGER NOT NULL,
    error_type TEXT,
    error TEXT,
    traceback TEXT
) STRICT;
CREATE INDEX tries_task ON tries (run, task);
-- Of runs that failed or were cancelled, and of no others: empty where it is not known, or there is none.
ALTER TABLE runs ADD COLUMN error_type TEXT;
UPDATE runs SET error_type = '' WHERE status IN ('Failed', 'Cancelled');
-- Listings are in the order of these, newest last. What few rows have is in indices of few rows, which no other row's change touches.
CREATE INDEX runs_created ON runs (created_at);
DROP INDEX runs_schedule;
CREATE INDEX runs_schedule ON runs (schedule, created_at) WHERE schedule IS NOT NULL;
DROP INDEX runs_workflow;
CREATE INDEX runs_workflow ON runs (workflow, created_at);
CREATE INDEX runs_key ON runs (run_key, created_at) WHERE run_key IS NOT NULL;
CREATE INDEX runs_failed ON runs (created_at) WHERE error_type IS NOT NULL;
CREATE INDEX runs_error ON runs (error_type, created_at) WHERE error_type IS NOT NULL;
