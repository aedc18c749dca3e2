ALTER TABLE ml_connection_states DROP COLUMN browser_hash;
