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
-- How many polls in a row have failed.
ALTER TABLE schedules ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN wait_us INTEGER;
-- The order in which runs that guard their hashes have ended, for fires that were decided before: of one transaction all share a number.
ALTER TABLE runs ADD COLUMN end_number INTEGER;
CREATE INDEX runs_ended ON runs (schedule, context_hash, end_number) WHERE end_number IS NOT NULL;
INSERT INTO meta (name, value) VALUES ('ends', 0);
-- A cron with a name is the one of that name, with what was asked for by it; one that a call registered without is known by its three.
ALTER TABLE schedules ADD COLUMN declared_as TEXT;
ALTER TABLE schedules ADD COLUMN registered INTEGER NOT NULL DEFAULT 0;
UPDATE schedules SET registered = 1 WHERE kind = 'cron' AND name = '';
DROP INDEX schedules_cron;
CREATE UNIQUE INDEX schedules_cron ON schedules (workflow, expression, timezone) WHERE kind = 'cron' AND name = '';
CREATE INDEX schedules_cron_name ON schedules (name) WHERE kind = 'cron' AND name <> '';
CREATE UNIQUE INDEX schedules_declared ON schedules (name) WHERE kind = 'cron' AND declared_as IS NOT NULL;
-- Attempts that ended with the wish to be made later and use up no retry either; until when the next one waits, and how long that was to be.
ALTER TABLE tasks ADD COLUMN postponed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN not_before INTEGER;
ALTER TABLE tasks ADD COLUMN wait_us INTEGER;
-- What an attempt of an unfinished task left for the next one.
ALTER TABLE tasks ADD COLUMN checkpoint TEXT;
-- Since when its body waits without a slot, of one that has for some seconds: the death of its process is none of its fault.
ALTER TABLE tasks ADD COLUMN rests_since INTEGER;
-- Runs that a runner had which declares another version than theirs: what it began and did not put on record is not known by their version.
ALTER TABLE runs ADD COLUMN mixed INTEGER NOT NULL DEFAULT 0;
-- What a cron's runs find in their contexts beside the moment, and what they obey.
ALTER TABLE schedules ADD COLUMN context TEXT;
ALTER TABLE schedules ADD COLUMN overlap TEXT;
ALTER TABLE schedules ADD COLUMN catchup TEXT;
-- How often somebody has set a cursor beside the polls that move it: what a poll decided by an older one is refused.
ALTER TABLE schedules ADD COLUMN cursor_set INTEGER NOT NULL DEFAULT 0;
-- How often a poll of a trigger has been asked for beside its interval, and how often that was when the last one began; and who calls it about an
-- end of a run, until that call is over.
ALTER TABLE schedules ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN answered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN called_by INTEGER;
CREATE INDEX schedules_called ON schedules (owner) WHERE called_by IS NOT NULL;
-- How attempts ended, but for those that completed at once, which their tasks' rows tell. They outlive the rows of tasks that are undecided
-- again, and are in the order in which they were kept; of many those between are not kept, and each says which of them it is.
CREATE TABLE tries (
    row INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    task TEXT NOT NULL,
    nth INTEGER NOT NULL,
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
-- Bodies of attempts that were given up, while they still run in the process of that owner: of their tasks nothing may begin again.
CREATE TABLE overdue (
    run INTEGER NOT NULL,
    task TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (run, task, attempt)
) STRICT, WITHOUT ROWID;
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
CREATE INDEX runs_failed ON runs (status, created_at) WHERE error_type IS NOT NULL;
CREATE INDEX runs_failed_of ON runs (workflow, status, created_at) WHERE error_type IS NOT NULL;
CREATE INDEX runs_failed_ends ON runs (completed_at) WHERE error_type IS NOT NULL;
CREATE INDEX runs_error ON runs (error_type, created_at) WHERE error_type IS NOT NULL;
-- What programs declare under one name comes in versions, numbered in the order in which each was declared for the first time. That of a
-- trigger's owner, and of a cron that is in force, stands in its row; who else declares one, and every cron's program, is in `declared`.
ALTER TABLE schedules ADD COLUMN digest INTEGER;
ALTER TABLE schedules ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
-- What was declared before and is in no row.
CREATE TABLE versions (
    name TEXT NOT NULL,
    digest INTEGER NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (name, digest)
) STRICT, WITHOUT ROWID;
-- An owner that has left counts for nothing here, and goes with the next declaration of that name. Who is to poll a trigger that another one
-- polls in the same version says that it wants it, until it has it.
CREATE TABLE declared (
    name TEXT NOT NULL,
    owner INTEGER NOT NULL,
    version INTEGER NOT NULL,
    wanted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, owner)
) STRICT, WITHOUT ROWID;
CREATE INDEX declared_wanted ON declared (owner) WHERE wanted = 1;
-- Who has how many triggers to poll.
CREATE INDEX schedules_polled ON schedules (owner) WHERE kind = 'trigger' AND enabled;
-- Since when nobody polls a trigger that its owner has let go.
ALTER TABLE schedules ADD COLUMN free_since INTEGER;
-- Since when it is switched off.
ALTER TABLE schedules ADD COLUMN disabled_at INTEGER;
UPDATE schedules SET disabled_at = updated_at WHERE NOT enabled;
-- Which moments of a cron are over, as pairs of the first and the last that were decided one after another: what came before its declaration,
-- and what has run or been passed over.
ALTER TABLE schedules ADD COLUMN decided TEXT;
UPDATE schedules SET decided = '[[' || max(created_at, coalesce(last_at, created_at)) || ',' || max(created_at, coalesce(last_at, created_at)) || ']]' WHERE kind = 'cron';
-- Of a name that is polled and a cron's one after the other, where it has come to stands in its other row.
ALTER TABLE schedules ADD COLUMN stale INTEGER NOT NULL DEFAULT 0;
-- What listings and logs hide: keys of contexts, and whether a function decides beside them. The values themselves are kept as they are.
CREATE TABLE redacted (how TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (how, key)) STRICT, WITHOUT ROWID;
-- Which version of a workflow each living runner declares.
CREATE TABLE workflows (
    name TEXT NOT NULL,
    owner INTEGER NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (name, owner)
) STRICT, WITHOUT ROWID;
-- Who a runner is, what it did in each minute of the last week, and which polls have been in their bodies for too long: for who looks from outside.
ALTER TABLE owners ADD COLUMN host TEXT;
ALTER TABLE owners ADD COLUMN pid INTEGER;
ALTER TABLE owners ADD COLUMN version TEXT;
-- Whether it polls and runs anything, or only asks others for that.
ALTER TABLE owners ADD COLUMN works INTEGER NOT NULL DEFAULT 1;
-- What its program calls it, and whether it runs crons.
ALTER TABLE owners ADD COLUMN called TEXT;
ALTER TABLE owners ADD COLUMN crons INTEGER NOT NULL DEFAULT 1;
-- Whether it takes nothing more, and only waits for what is in its hands.
ALTER TABLE owners ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
ALTER TABLE owners ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
CREATE TABLE minutes (
    ended_at INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    polls INTEGER NOT NULL,
    fires INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    started INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    PRIMARY KEY (ended_at, owner)
) STRICT, WITHOUT ROWID;
ALTER TABLE schedules ADD COLUMN in_body_since INTEGER;
CREATE INDEX schedules_in_body ON schedules (owner) WHERE in_body_since IS NOT NULL;
-- Which changes people made by the page or the command line, the newest hundred thousand; what programs do by themselves is not among them.
CREATE TABLE audit (
    row INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    door TEXT NOT NULL,
    place TEXT,
    what TEXT NOT NULL,
    about TEXT NOT NULL,
    many INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_about ON audit (about);
-- By which task of which other run a run was started: none of a callback. What the same call of an attempt before has started is not started
-- again; one that was asked for with a run key is no such call.
ALTER TABLE runs ADD COLUMN parent TEXT;
ALTER TABLE runs ADD COLUMN parent_task TEXT;
ALTER TABLE runs ADD COLUMN parent_call INTEGER;
-- Whether it does the work of its parent once more.
ALTER TABLE runs ADD COLUMN again INTEGER NOT NULL DEFAULT 0;
-- Whether who asked for it named its parent.
ALTER TABLE runs ADD COLUMN given INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_parent ON runs (parent, created_at) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX runs_call ON runs (parent, parent_task, workflow, parent_call) WHERE parent_call IS NOT NULL;
-- How urgent runs are, when one was to begin that was asked for with a delay, how long that was if it was no instant, and until when it waits
-- for that: until then it is nobody's, and so it is while nobody has claimed it since. What waits stands behind what does not.
ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 5;
ALTER TABLE runs ADD COLUMN due_at INTEGER;
ALTER TABLE runs ADD COLUMN delay_us INTEGER;
ALTER TABLE runs ADD COLUMN not_before INTEGER;
ALTER TABLE workflows ADD COLUMN priority INTEGER NOT NULL DEFAULT 5;
DROP INDEX runs_unfinished;
CREATE INDEX runs_unfinished ON runs (not_before) WHERE completed_at IS NULL;
CREATE INDEX runs_delayed ON runs (row) WHERE completed_at IS NULL AND not_before IS NOT NULL;
-- By when they were asked for, of those that wait so long from then: none of them lies ahead, unless the clock was ahead.
CREATE INDEX runs_spans ON runs (not_before - delay_us)
    WHERE completed_at IS NULL AND delay_us IS NOT NULL AND not_before < 9223372036854775807;
CREATE INDEX runs_delayed_fires ON runs (schedule) WHERE completed_at IS NULL AND not_before IS NOT NULL AND schedule IS NOT NULL;
-- Since when a run's time runs under its owner, and how much of it was left then, in microseconds; all of it if none.
ALTER TABLE runs ADD COLUMN timed_at INTEGER;
ALTER TABLE runs ADD COLUMN time_left INTEGER;
-- What a claim finds, in its order. Who took an owner off the list notes whose these were; who claims them tells of the interruption.
ALTER TABLE runs ADD COLUMN owner_before INTEGER;
UPDATE runs SET owner_before = owner, owner = NULL, interruptions = interruptions + 1
    WHERE completed_at IS NULL AND owner NOT IN (SELECT epoch FROM owners WHERE left_at IS NULL);
CREATE INDEX runs_unowned ON runs (workflow, priority DESC) WHERE completed_at IS NULL AND not_before IS NULL AND owner IS NULL;
-- Limits of attempts by their names: what was declared last, what somebody has set instead, and what the last start left for the throttle.
CREATE TABLE named_limits (
    name TEXT PRIMARY KEY,
    concurrency INTEGER,
    throttle INTEGER,
    per_us INTEGER,
    burst INTEGER,
    is_set INTEGER NOT NULL DEFAULT 0,
    set_concurrency INTEGER,
    set_throttle INTEGER,
    set_per_us INTEGER,
    set_burst INTEGER,
    stamp INTEGER
) STRICT, WITHOUT ROWID;
-- Attempts that have a seat of a limit, since when, or wait for one. They go with their owner.
CREATE TABLE limit_seats (
    row INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    run INTEGER NOT NULL,
    task TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    since INTEGER NOT NULL,
    granted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX limit_seats_attempt ON limit_seats (run, task, attempt, name);
CREATE INDEX limit_seats_waiting ON limit_seats (name, priority DESC) WHERE granted_at IS NULL;
CREATE INDEX limit_seats_taken ON limit_seats (name) WHERE granted_at IS NOT NULL;
CREATE INDEX limit_seats_owner ON limit_seats (owner);
-- What is not to begin, of a workflow perhaps only what its limits count for one value of a key, until when (somebody takes it back if that is not known), since when and by whom.
CREATE TABLE pauses (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    until INTEGER,
    since INTEGER NOT NULL,
    by TEXT NOT NULL,
    PRIMARY KEY (kind, name, key)
) STRICT, WITHOUT ROWID;
-- What limits the runs of a workflow, as JSON: as the runner declares it, and what is in force, by the one that came last of those that live or
-- lived last. Of others a run says it itself.
ALTER TABLE workflows ADD COLUMN limits TEXT;
CREATE TABLE limited (workflow TEXT PRIMARY KEY, limits TEXT NOT NULL) STRICT, WITHOUT ROWID;
-- Runs that limits count; those that wait for their beginning are nobody's, and wait until the end of time.
ALTER TABLE runs ADD COLUMN limited INTEGER NOT NULL DEFAULT 0;
-- What is counted for: a value of a workflow's key, none being empty. Of throttles (1) and rate limits (2) with the stamp of the last that passed.
CREATE TABLE keys (
    row INTEGER PRIMARY KEY,
    workflow TEXT NOT NULL,
    rule INTEGER NOT NULL,
    key TEXT NOT NULL,
    stamp INTEGER
) STRICT;
CREATE UNIQUE INDEX keys_name ON keys (workflow, rule, key);
CREATE INDEX keys_stamp ON keys (stamp) WHERE stamp IS NOT NULL;
-- What waits for the same: first the most urgent, then in order. A lane's top is the priority of what is first in it, none if nothing waits, and
-- may be too high until a claim has looked; since when it waits is a number that grows with each claim. It is open (0), full (1) until a seat of
-- its key is given back, or shut (2) until a time, and since one: if that lies ahead the clock has been set back.
CREATE TABLE lanes (
    row INTEGER PRIMARY KEY,
    workflow TEXT NOT NULL,
    seat INTEGER NOT NULL,
    pace INTEGER NOT NULL,
    top INTEGER,
    since INTEGER NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    until INTEGER,
    shut_at INTEGER
) STRICT;
CREATE UNIQUE INDEX lanes_keys ON lanes (seat, pace);
CREATE INDEX lanes_pace ON lanes (pace);
CREATE INDEX lanes_open ON lanes (workflow, top DESC, since) WHERE top IS NOT NULL AND held = 0;
CREATE INDEX lanes_full ON lanes (seat) WHERE held = 1;
CREATE INDEX lanes_shut ON lanes (until) WHERE held = 2;
CREATE INDEX lanes_ahead ON lanes (shut_at) WHERE held = 2;
-- The limited runs that are not over: which wait (0), sit (1), wait for their time (2) or for one of their trigger before them (3). A run that
-- was called by one of the same key sits with that, and they are one party.
CREATE TABLE seats (
    run INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    seat INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    stand INTEGER NOT NULL,
    party INTEGER NOT NULL,
    schedule INTEGER,
    place INTEGER NOT NULL
) STRICT;
CREATE INDEX seats_waiting ON seats (lane, priority DESC, run) WHERE stand = 0;
CREATE INDEX seats_lane ON seats (lane);
CREATE INDEX seats_seat ON seats (seat, stand, party);
CREATE INDEX seats_schedule ON seats (schedule, place) WHERE schedule IS NOT NULL;
INSERT INTO meta (name, value) VALUES ('turns', 0);
-- What is known of a workflow in a version without its program, for who looks at its runs, and since when no living runner declares it: it goes
-- when no run is left of its time.
CREATE TABLE graphs (
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    unused_since INTEGER,
    graph TEXT NOT NULL,
    PRIMARY KEY (workflow, version)
) STRICT;
CREATE INDEX graphs_used ON graphs (workflow, version) WHERE unused_since IS NULL;
-- What the telemetry of whoever asked for a run hands on to its bodies, as JSON text.
ALTER TABLE runs ADD COLUMN trace TEXT;
-- Who is to be told of the ends of a workflow's runs: its callbacks (0), as those declare who live or lived last, or a trigger by its row. Outcomes are a sum of 1 for
-- Completed, 2 for Failed and 4 for Cancelled. A trigger is told of those alone that it wants now; what it wanted before is written down all the same, and may be
-- wanted again, unless that is too long ago.
ALTER TABLE workflows ADD COLUMN tells INTEGER NOT NULL DEFAULT 0;
CREATE TABLE listeners (
    workflow TEXT NOT NULL,
    listener INTEGER NOT NULL,
    outcomes INTEGER NOT NULL,
    wanted INTEGER NOT NULL DEFAULT 0,
    unwanted_since INTEGER,
    PRIMARY KEY (workflow, listener)
) STRICT, WITHOUT ROWID;
CREATE INDEX listeners_listener ON listeners (listener) WHERE listener <> 0;
-- Ends of which somebody is still to be told: for whom, who is at it, how long that was
-- put off, how often it was begun, and what went wrong last. A run has an end more
-- for each time that it was opened again. A trigger is told of each, one after the other: what the run was when it ended stands here once that
-- is not what it is any more.
ALTER TABLE runs ADD COLUMN reopened INTEGER NOT NULL DEFAULT 0;
-- Then it stands at the end of its line: the place between two rows, in parts of 1048576; and whether there may be such of a schedule.
ALTER TABLE runs ADD COLUMN turn INTEGER;
CREATE INDEX runs_again ON runs (schedule, turn) WHERE turn IS NOT NULL AND completed_at IS NULL;
ALTER TABLE schedules ADD COLUMN again INTEGER NOT NULL DEFAULT 0;
-- Since when a run that was opened again lies over, until the first of its tasks begins again, and how long it lay over before.
ALTER TABLE runs ADD COLUMN lay_since INTEGER;
ALTER TABLE runs ADD COLUMN lain_us INTEGER NOT NULL DEFAULT 0;
CREATE TABLE ends (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    number INTEGER NOT NULL,
    listener INTEGER NOT NULL,
    workflow TEXT NOT NULL,
    outcome INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    pause_us INTEGER NOT NULL DEFAULT 0,
    -- By whose clock it is due, if it was put off.
    put_off_by INTEGER,
    tries INTEGER NOT NULL DEFAULT 0,
    owner INTEGER,
    begun_at INTEGER,
    error TEXT,
    context TEXT,
    cause TEXT
) STRICT;
CREATE UNIQUE INDEX ends_run ON ends (run, number, listener);
CREATE INDEX ends_due ON ends (listener, workflow, due_at) WHERE owner IS NULL;
CREATE INDEX ends_owner ON ends (owner) WHERE owner IS NOT NULL;
CREATE INDEX ends_listener ON ends (listener, workflow, outcome, row) WHERE listener <> 0;
CREATE INDEX ends_untold ON ends (run) WHERE listener = 0;
-- What became of the last end of a run that a callback was to be told of: of which outcome, after how many calls, when, whether it was told, given up,
-- skipped or dropped, and what the last call raised that failed, unless it was told.
ALTER TABLE runs ADD COLUMN told_outcome INTEGER;
ALTER TABLE runs ADD COLUMN told_calls INTEGER;
ALTER TABLE runs ADD COLUMN told_at INTEGER;
ALTER TABLE runs ADD COLUMN told_as TEXT;
ALTER TABLE runs ADD COLUMN told_error TEXT;
CREATE INDEX runs_lost ON runs (told_as, told_at) WHERE told_as = 'dropped' OR told_as = 'given_up';
-- How many ends led to a run, each by a trigger that was told of it.
ALTER TABLE runs ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;
-- What bodies logged, of each run the newest lines, with what each counts of the bytes that a run may have.
CREATE TABLE logs (
    row INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    task TEXT,
    attempt INTEGER,
    -- Which one, if a callback of the task or, without one, of the run logged it.
    callback TEXT,
    at INTEGER NOT NULL,
    level INTEGER NOT NULL,
    logger TEXT NOT NULL,
    text TEXT NOT NULL,
    error TEXT,
    bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX logs_run ON logs (run);
-- How much that is of each run, and how many lines were left out.
CREATE TABLE logged (
    run INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL,
    left_out INTEGER NOT NULL
) STRICT;
