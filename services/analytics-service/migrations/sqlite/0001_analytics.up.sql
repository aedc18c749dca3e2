-- What analytics-service knows of each user: counts per event type and hour, and the state of its consumer, which
-- lives beside the counts so that both change in one transaction. Times are microseconds since 1970, UTC, unless
-- a column says otherwise.

-- Where the consumer stands: the offset of the last event whose effect is stored.
CREATE TABLE analytics_positions (
    topic          TEXT NOT NULL,
    partition      INTEGER NOT NULL,
    consumer_group TEXT NOT NULL,
    position       INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, consumer_group)
) STRICT, WITHOUT ROWID;

-- Which replica consumes a partition, until when; it renews while it lives.
CREATE TABLE analytics_assignments (
    topic          TEXT NOT NULL,
    partition      INTEGER NOT NULL,
    consumer_group TEXT NOT NULL,
    holder         TEXT NOT NULL,
    until          INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, consumer_group)
) STRICT, WITHOUT ROWID;

-- Events counted lately: a publisher that died between publishing and noting it publishes again, at another offset.
CREATE TABLE analytics_seen_events (
    event_id TEXT NOT NULL PRIMARY KEY,
    seen_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX analytics_seen_events_by_time ON analytics_seen_events (seen_at);

CREATE TABLE analytics_hours (
    tenant     TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    hour       INTEGER NOT NULL, -- whole hours since 1970, UTC
    event_type TEXT NOT NULL,
    events     INTEGER NOT NULL,
    PRIMARY KEY (tenant, user_id, hour, event_type)
) STRICT, WITHOUT ROWID;
CREATE INDEX analytics_hours_by_time ON analytics_hours (hour);

-- The sum over all hours, those already pruned too.
CREATE TABLE analytics_totals (
    tenant     TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    event_type TEXT NOT NULL,
    events     INTEGER NOT NULL,
    last_at    INTEGER NOT NULL,
    PRIMARY KEY (tenant, user_id, event_type)
) STRICT, WITHOUT ROWID;

-- Users whose account was deleted: events of theirs that arrive later are not counted.
CREATE TABLE analytics_erased_users (
    tenant    TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    erased_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, user_id)
) STRICT, WITHOUT ROWID;

-- Events that could not be read, with the reason, so that they neither block the partition nor vanish.
CREATE TABLE analytics_dead_events (
    topic     TEXT NOT NULL,
    partition INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    payload   TEXT NOT NULL,
    dead_at   INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, position)
) STRICT, WITHOUT ROWID;
