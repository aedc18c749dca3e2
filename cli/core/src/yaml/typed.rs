//! Errors of formats that serde reads at once (JSON, TOML), as problems with a place and the words of this module.

use super::limit::LARGEST;
use super::problem::{KeyPath, Problem, Problems, did_you_mean};
use super::text::lines;

/// Returns the one problem of a file that serde refused: it stops at the first. `at` is a byte of the text.
pub fn refused(file: &str, text: &str, at: usize, reason: &str) -> Problems {
    let (line, column) = place_of(text, at);
    // serde_json repeats the place behind its words.
    let reason = reason.rsplit_once(" at line ").map_or(reason, |(words, _)| words);
    let words = reason.to_owned();
    let mut suggestion = None;
    if words.starts_with("unknown field") || words.starts_with("unknown variant") {
        let mut quoted = words.split('`').skip(1).step_by(2);
        suggestion = quoted.next().and_then(|found| did_you_mean(found, quoted));
    }
    let message = match words.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
        Some((key, _)) => format!("the key `{key}` is missing"),
        None if words.starts_with("EOF while parsing") => {
            let inside = words.trim_start_matches("EOF while parsing ");
            format!("found the end of the file inside {inside}, expected more: is it cut off?")
        }
        None => in_our_words(&words),
    };
    problem(file, line, column, message, suggestion)
}

fn in_our_words(words: &str) -> String {
    let mut words = words.to_owned();
    for (theirs, ours) in [
        ("unknown field", "unknown key"),
        ("unknown variant", "found"),
        ("invalid type: ", "found "),
        ("invalid value: ", "found "),
        ("trailing characters", "found more behind the end, expected nothing"),
        ("duplicate key", "found a key again, expected it once"),
        ("expected value", "found no JSON value, expected one"),
    ] {
        if let Some(rest) = words.strip_prefix(theirs) {
            words = format!("{ours}{rest}");
        }
    }
    for number in ["u16", "u32", "u64", "usize", "i64"] {
        if let Some(rest) = words.strip_suffix(&format!("expected {number}")) {
            words = format!("{rest}expected a whole number");
        }
    }
    words
}

/// Returns the byte that serde_json means by a line and a column, which it counts in bytes from 1.
pub fn byte_of(text: &str, line: usize, column: usize) -> usize {
    let before = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    before.saturating_add(column.saturating_sub(1))
}

/// Returns line and column of a byte of a text; of its end, when it is shorter.
fn place_of(text: &str, at: usize) -> (usize, usize) {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let before = text.get(..at).unwrap_or_default();
    // The end of a file that ends with its last line is looked for on that line.
    let before = if at == text.len() { before.trim_end_matches(['\n', '\r']) } else { before };
    let (count, last) = lines(before).fold((0, ""), |(count, _), line| (count + 1, line));
    (count, last.chars().count() + 1)
}

/// Returns the text of a file, or why its bytes are none. `most` bytes are taken.
///
/// # Errors
/// Too many bytes, or a byte that is not UTF-8.
pub fn text_of<'a>(file: &str, bytes: &'a [u8], most: usize) -> Result<&'a str, Problems> {
    if bytes.len() > most {
        let most = most / LARGEST;
        let message = format!("found more than {most} MiB, expected less: is this the right file?");
        return Err(problem(file, 1, 1, message, None));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = place_of(&String::from_utf8_lossy(bytes), error.valid_up_to());
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        let message = format!("found the byte 0x{byte:02x}, expected UTF-8 text; save the file as UTF-8");
        problem(file, line, column, message, None)
    })
}

fn problem(file: &str, line: usize, column: usize, message: String, suggestion: Option<String>) -> Problems {
    Problems::from_iter([Problem {
        file: file.into(),
        line: line.max(1),
        column: column.max(1),
        path: KeyPath::default(),
        message,
        suggestion,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_serde_become_ours() {
        let text = "a\nb\nc";
        for (reason, expected) in [
            ("missing field `target` at line 3 column 1", "f:3:1: the key `target` is missing"),
            (
                "unknown field `pase`, expected one of `pace`, `timing`",
                "f:3:1: unknown key `pase`, expected one of `pace`, `timing`; did you mean `pace`?",
            ),
            ("expected value at line 3 column 1", "f:3:1: found no JSON value, expected one"),
            (
                "invalid type: string \"x\", expected u32",
                "f:3:1: found string \"x\", expected a whole number",
            ),
        ] {
            assert_eq!(refused("f", text, byte_of(text, 3, 1), reason).to_string(), expected);
        }
        assert_eq!(text_of("f", b"a\n\xff", 9).unwrap_err().to_string().get(..6), Some("f:2:1:"));
        assert_eq!(place_of("é\nab", 4), (2, 2));
        assert_eq!(place_of("é\nab", 1), (1, 1), "the middle of a character is its beginning");
        assert_eq!(place_of("ab\n", 99), (1, 3), "the end is on the last line");
    }
}
