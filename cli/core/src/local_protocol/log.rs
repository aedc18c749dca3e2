//! The log files of a replica.

/// Log files of a replica, newest first: the one being written, then `log.1` to `log.4`.
pub const LOG_FILES: [&str; 5] = ["log", "log.1", "log.2", "log.3", "log.4"];

/// Splits a line of a log file, `TIMESTAMP TEXT`, as the shim writes it.
#[must_use]
pub fn split_log_line(line: &str) -> (Option<jiff::Timestamp>, &str) {
    match line.split_once(' ') {
        Some((at, text)) => match at.parse() {
            Ok(at) => (Some(at), text),
            Err(_) => (None, line),
        },
        None => line.parse().map_or((None, line), |at| (Some(at), "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_splits_into_time_and_text() {
        let at: jiff::Timestamp = "2026-11-24T03:00:00.123Z".parse().unwrap();
        for (line, expected) in [
            ("2026-11-24T03:00:00.123Z hello  world", (Some(at), "hello  world")),
            ("2026-11-24T03:00:00.123Z ", (Some(at), "")),
            ("2026-11-24T03:00:00.123Z", (Some(at), "")),
            ("no time here", (None, "no time here")),
            ("", (None, "")),
        ] {
            assert_eq!(split_log_line(line), expected, "{line}");
        }
    }
}
