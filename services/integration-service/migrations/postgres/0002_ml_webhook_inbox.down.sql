DROP TABLE ml_webhook_inbox;
