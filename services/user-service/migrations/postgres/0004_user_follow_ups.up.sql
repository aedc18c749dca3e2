-- What other services must still hear about a removed user: written with the removal, worked off afterwards.
-- No foreign key: the user is gone by then.
CREATE TABLE user_follow_ups (
    id       uuid    NOT NULL PRIMARY KEY,
    kind     text    NOT NULL CHECK (kind IN ('disconnect', 'publish')),
    user_id  uuid    NOT NULL,
    payload  text    NOT NULL,
    due_at   bigint  NOT NULL,
    attempts integer NOT NULL DEFAULT 0
);

CREATE INDEX idx_user_follow_ups_due_at ON user_follow_ups (due_at);
