-- People who may sign in. Times are milliseconds since 1970-01-01 UTC.
CREATE TABLE users (
    id            uuid   NOT NULL PRIMARY KEY,
    tenant        text   NOT NULL,
    email         text   NOT NULL,
    password_hash text   NOT NULL,
    ml_user_id    bigint,
    created_at    bigint NOT NULL
);

-- An e-mail signs in without naming its tenant, so it is unique over all of them.
CREATE UNIQUE INDEX idx_users_email ON users (email);
CREATE INDEX idx_users_ml_user_id ON users (ml_user_id);
CREATE INDEX idx_users_created_at ON users (created_at);
