//! How long a verdict takes, and what must not be one.
