-- Notifications as they came, stored before they are acknowledged.
CREATE TABLE ml_webhook_inbox (
    id          text    NOT NULL PRIMARY KEY,
    topic       text    NOT NULL,
    resource    text    NOT NULL,
    ml_user_id  bigint  NOT NULL,
    payload     text    NOT NULL,
    received_at bigint  NOT NULL,
    state       text    NOT NULL CHECK (state IN ('waiting', 'done', 'skipped', 'dead')),
    attempts    integer NOT NULL DEFAULT 0,
    -- When it is due; a claim moves it past the claim's lease.
    due_at      bigint  NOT NULL,
    last_error  text
);
CREATE INDEX ml_webhook_inbox_due ON ml_webhook_inbox (due_at) WHERE state = 'waiting';
CREATE INDEX ml_webhook_inbox_old ON ml_webhook_inbox (received_at) WHERE state <> 'waiting';
