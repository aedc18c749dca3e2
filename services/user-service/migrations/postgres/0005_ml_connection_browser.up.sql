-- The SHA-256 of the cookie of the browser that began the consent. NULL in rows of an older version, whose callbacks
-- then need the bearer token.
ALTER TABLE ml_connection_states ADD COLUMN browser_hash bytea;
