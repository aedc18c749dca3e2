//! Journals and evidence: verified, repaired, kept, pruned.
