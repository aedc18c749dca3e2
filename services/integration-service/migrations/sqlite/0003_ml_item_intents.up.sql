-- What was meant to be listed, written before MercadoLibre is asked: POST /items has no idempotency key there.
CREATE TABLE ml_item_intents (
    user_id TEXT NOT NULL,
    key TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    seller_sku TEXT,
    -- sending, doubtful or done.
    state TEXT NOT NULL,
    status INTEGER,
    answer TEXT,
    created_at INTEGER NOT NULL,
    -- A sending intent older than its lease belongs to a process that died.
    lease_until INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT;
CREATE INDEX ml_item_intents_old ON ml_item_intents (created_at);
