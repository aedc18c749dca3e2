-- Connected MercadoLibre accounts. Tokens are sealed (AES-256-GCM); the key is never in the database.
CREATE TABLE ml_accounts (
    user_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- Global on purpose: one MercadoLibre account belongs to one user of one tenant.
    ml_user_id INTEGER NOT NULL UNIQUE,
    access_token TEXT NOT NULL,
    refresh_token TEXT NOT NULL,
    -- Milliseconds since the Unix epoch.
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Moves on with every new pair of tokens.
    version INTEGER NOT NULL DEFAULT 1,
    -- Set while one process refreshes; one that is past means that the process died in the middle.
    refresh_lease_until INTEGER,
    -- Why the person must connect again; NULL = all is well.
    reauth_reason TEXT,
    connected_at INTEGER NOT NULL
) STRICT;
