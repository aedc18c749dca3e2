-- What other services must still hear about a removed user: written with the removal, worked off afterwards.
-- No foreign key: the user is gone by then.
CREATE TABLE user_follow_ups (
    id       TEXT    NOT NULL PRIMARY KEY,
    kind     TEXT    NOT NULL CHECK (kind IN ('disconnect', 'publish')),
    user_id  TEXT    NOT NULL,
    payload  TEXT    NOT NULL,
    due_at   INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX idx_user_follow_ups_due_at ON user_follow_ups (due_at);
