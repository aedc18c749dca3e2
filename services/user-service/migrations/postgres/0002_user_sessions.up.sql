-- One row per sign-in: the family that its rotated refresh tokens belong to.
CREATE TABLE user_sessions (
    id         uuid   NOT NULL PRIMARY KEY,
    user_id    uuid   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at bigint NOT NULL,
    revoked_at bigint
);

CREATE INDEX idx_user_sessions_user_id ON user_sessions (user_id);

-- Only the SHA-256 of a token is kept. A used token stays until it expires: presenting it again shows a theft.
CREATE TABLE refresh_tokens (
    token_hash bytea  NOT NULL PRIMARY KEY,
    session_id uuid   NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    expires_at bigint NOT NULL,
    used_at    bigint
);

CREATE INDEX idx_refresh_tokens_session_id ON refresh_tokens (session_id);
CREATE INDEX idx_refresh_tokens_expires_at ON refresh_tokens (expires_at);
