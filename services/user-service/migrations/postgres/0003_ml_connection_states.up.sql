-- MercadoLibre consents under way. Only the SHA-256 of the state is kept, and the state itself opens the verifier:
-- neither this table nor the browser's address bar alone can redeem a code.
CREATE TABLE ml_connection_states (
    state_hash      bytea  NOT NULL PRIMARY KEY,
    user_id         uuid   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    session_id      uuid   NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    sealed_verifier bytea  NOT NULL,
    expires_at      bigint NOT NULL
);

CREATE INDEX idx_ml_connection_states_user_id ON ml_connection_states (user_id);
CREATE INDEX idx_ml_connection_states_session_id ON ml_connection_states (session_id);
CREATE INDEX idx_ml_connection_states_expires_at ON ml_connection_states (expires_at);
