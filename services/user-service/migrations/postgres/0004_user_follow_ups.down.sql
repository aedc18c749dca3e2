DROP TABLE user_follow_ups;
