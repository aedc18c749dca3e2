//! Random `kill -9` of agent, shims and replicas under load.
