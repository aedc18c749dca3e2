-- Connected MercadoLibre accounts. Tokens are sealed (AES-256-GCM); the key is never in the database.
CREATE TABLE ml_accounts (
    user_id             uuid    NOT NULL PRIMARY KEY,
    tenant              text    NOT NULL,
    -- Global on purpose: one MercadoLibre account belongs to one user of one tenant.
    ml_user_id          bigint  NOT NULL CONSTRAINT ml_accounts_ml_user_id_key UNIQUE,
    access_token        text    NOT NULL,
    refresh_token       text    NOT NULL,
    -- Milliseconds since the Unix epoch.
    issued_at           bigint  NOT NULL,
    expires_at          bigint  NOT NULL,
    -- Moves on with every new pair of tokens.
    version             bigint  NOT NULL DEFAULT 1,
    -- Set while one process refreshes; one that is past means that the process died in the middle.
    refresh_lease_until bigint,
    -- Why the person must connect again; NULL = all is well.
    reauth_reason       text,
    connected_at        bigint  NOT NULL
);
