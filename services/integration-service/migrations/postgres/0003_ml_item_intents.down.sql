DROP TABLE ml_item_intents;
