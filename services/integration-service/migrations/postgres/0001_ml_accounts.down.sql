DROP TABLE ml_accounts;
