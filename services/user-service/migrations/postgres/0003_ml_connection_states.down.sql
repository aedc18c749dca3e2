DROP TABLE ml_connection_states;
