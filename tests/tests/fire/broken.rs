//! Releases broken in the ways that production breaks them.
