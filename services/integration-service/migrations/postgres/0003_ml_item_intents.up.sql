-- What was meant to be listed, written before MercadoLibre is asked: POST /items has no idempotency key there.
CREATE TABLE ml_item_intents (
    user_id      uuid     NOT NULL,
    key          text     NOT NULL,
    request_hash text     NOT NULL,
    seller_sku   text,
    state        text     NOT NULL CHECK (state IN ('sending', 'doubtful', 'done')),
    status       integer,
    answer       text,
    created_at   bigint   NOT NULL,
    -- A sending intent older than its lease belongs to a process that died.
    lease_until  bigint   NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX ml_item_intents_old ON ml_item_intents (created_at);
