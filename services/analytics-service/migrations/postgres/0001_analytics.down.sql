DROP TABLE analytics_dead_events;
DROP TABLE analytics_erased_users;
DROP TABLE analytics_totals;
DROP TABLE analytics_hours;
DROP TABLE analytics_seen_events;
DROP TABLE analytics_assignments;
DROP TABLE analytics_positions;
