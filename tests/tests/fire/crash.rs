//! `kill -9` of mlctl after each kind of journal record, then a resume.
