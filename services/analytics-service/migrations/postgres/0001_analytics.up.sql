-- What analytics-service knows of each user: counts per event type and hour, and the state of its consumer, which
-- lives beside the counts so that both change in one transaction. Times are microseconds since 1970, UTC, unless
-- a column says otherwise.

-- Where the consumer stands: the offset of the last event whose effect is stored.
CREATE TABLE analytics_positions (
    topic          text    NOT NULL,
    partition      integer NOT NULL,
    consumer_group text    NOT NULL,
    position       bigint  NOT NULL,
    updated_at     bigint  NOT NULL,
    PRIMARY KEY (topic, partition, consumer_group)
);

-- Which replica consumes a partition, until when; it renews while it lives.
CREATE TABLE analytics_assignments (
    topic          text    NOT NULL,
    partition      integer NOT NULL,
    consumer_group text    NOT NULL,
    holder         text    NOT NULL,
    until          bigint  NOT NULL,
    PRIMARY KEY (topic, partition, consumer_group)
);

-- Events counted lately: a publisher that died between publishing and noting it publishes again, at another offset.
CREATE TABLE analytics_seen_events (
    event_id uuid   NOT NULL PRIMARY KEY,
    seen_at  bigint NOT NULL
);
CREATE INDEX analytics_seen_events_by_time ON analytics_seen_events (seen_at);

CREATE TABLE analytics_hours (
    tenant     text   NOT NULL,
    user_id    uuid   NOT NULL,
    hour       bigint NOT NULL, -- whole hours since 1970, UTC
    event_type text   NOT NULL,
    events     bigint NOT NULL,
    PRIMARY KEY (tenant, user_id, hour, event_type)
);
CREATE INDEX analytics_hours_by_time ON analytics_hours (hour);

-- The sum over all hours, those already pruned too.
CREATE TABLE analytics_totals (
    tenant     text   NOT NULL,
    user_id    uuid   NOT NULL,
    event_type text   NOT NULL,
    events     bigint NOT NULL,
    last_at    bigint NOT NULL,
    PRIMARY KEY (tenant, user_id, event_type)
);

-- Users whose account was deleted: events of theirs that arrive later are not counted.
CREATE TABLE analytics_erased_users (
    tenant    text   NOT NULL,
    user_id   uuid   NOT NULL,
    erased_at bigint NOT NULL,
    PRIMARY KEY (tenant, user_id)
);

-- Events that could not be read, with the reason, so that they neither block the partition nor vanish.
CREATE TABLE analytics_dead_events (
    topic     text    NOT NULL,
    partition integer NOT NULL,
    position  bigint  NOT NULL,
    reason    text    NOT NULL,
    payload   text    NOT NULL,
    dead_at   bigint  NOT NULL,
    PRIMARY KEY (topic, partition, position)
);
