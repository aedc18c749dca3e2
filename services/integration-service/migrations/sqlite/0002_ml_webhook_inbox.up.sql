-- Notifications as they came, stored before they are acknowledged.
CREATE TABLE ml_webhook_inbox (
    id TEXT PRIMARY KEY,
    topic TEXT NOT NULL,
    resource TEXT NOT NULL,
    ml_user_id INTEGER NOT NULL,
    payload TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    -- waiting, done, skipped or dead.
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- When it is due; a claim moves it past the claim's lease.
    due_at INTEGER NOT NULL,
    last_error TEXT
) STRICT;
CREATE INDEX ml_webhook_inbox_due ON ml_webhook_inbox (due_at) WHERE state = 'waiting';
CREATE INDEX ml_webhook_inbox_old ON ml_webhook_inbox (received_at) WHERE state <> 'waiting';
