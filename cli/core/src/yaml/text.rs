//! Bytes to text: what no YAML file holds is told before YAML is read.

use super::limit::LARGEST;

/// Why bytes are not the text of a file, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

/// Returns the text of a file, without its byte order mark.
pub(super) fn decode(bytes: &[u8]) -> Result<&str, Flaw> {
    let first = |message: String| Flaw { line: 1, column: 1, message };
    if bytes.len() > LARGEST {
        let message =
            format!("found more than {LARGEST} bytes, expected at most 1 MiB: is this the right file?");
        return Err(first(message));
    }
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=0x7f, ..] | [1..=0x7f, 0, ..] = bytes {
        return Err(first("found UTF-16 text, expected UTF-8; save the file as UTF-8".to_owned()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).map(String::from_utf8_lossy).unwrap_or_default();
        let (line, column) = end_of(good.strip_prefix('\u{feff}').unwrap_or(&good));
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        let message = format!("found the byte 0x{byte:02x}, expected UTF-8 text; save the file as UTF-8");
        Flaw { line, column, message }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((at, found)) = text.char_indices().find(|(_, c)| is_foreign(*c)) {
        let (line, column) = end_of(text.get(..at).unwrap_or_default());
        let code = u32::from(found);
        let message = match found {
            '\0' => "found a NUL byte, expected text; is this a binary file, or one cut off by a crash?"
                .to_owned(),
            '\u{feff}' => {
                "found a byte order mark (U+FEFF) inside the file, expected it at the start only; remove it"
                    .to_owned()
            }
            _ => format!("found the control character U+{code:04X}, expected text; remove it"),
        };
        return Err(Flaw { line, column, message });
    }
    match lines(text).enumerate().find_map(|(index, line)| Some((index, flaw_of_line(line)?))) {
        Some((index, (column, message))) => Err(Flaw { line: index + 1, column, message }),
        None => Ok(text),
    }
}

/// Says whether a character stands in no text: YAML takes a NUL for the end of the file and would pass over the rest.
fn is_foreign(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) || c == '\u{feff}'
}

fn flaw_of_line(line: &str) -> Option<(usize, String)> {
    if ["<<<<<<< ", ">>>>>>> ", "||||||| "].iter().any(|mark| line.starts_with(mark)) {
        return Some((1, "found the mark of a merge conflict, expected one of its two sides".to_owned()));
    }
    let mut indentation = line.chars().take_while(|c| c.is_whitespace());
    let column = indentation.position(|c| !matches!(c, ' ' | '\t' | '\r' | '\u{85}'))? + 1;
    let found = line.chars().nth(column - 1).map_or(0, u32::from);
    Some((
        column,
        format!("found a space of another kind (U+{found:04X}) in the indentation, expected plain spaces"),
    ))
}

/// Lines as the YAML reader counts them: a lone carriage return ends one too.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let now = rest?;
        match now.find(['\n', '\r']) {
            Some(at) => {
                let (line, from) = now.split_at(at);
                let end = if from.starts_with("\r\n") { 2 } else { 1 };
                rest = from.get(end..);
                Some(line)
            }
            None => rest.take(),
        }
    })
}

/// Line and column right behind `text`.
pub(super) fn end_of(text: &str) -> (usize, usize) {
    let (count, last) = lines(text).fold((0, ""), |(count, _), line| (count + 1, line));
    (count, last.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_three_ways() {
        let of = |text: &'static str| lines(text).collect::<Vec<_>>();
        assert_eq!(of(""), [""]);
        assert_eq!(of("a\nb\r\nc\rd"), ["a", "b", "c", "d"]);
        assert_eq!(of("a\n\r\n"), ["a", "", ""]);
    }

    #[test]
    fn what_is_no_text_has_a_place() {
        for (bytes, place, words) in [
            (&b"a: 1\nb: \xe9"[..], (2, 4), "the byte 0xe9"),
            (b"\xef\xbb\xbfa: \xff", (1, 4), "the byte 0xff"),
            (b"\xff\xfea\0", (1, 1), "UTF-16"),
            (b"a\0:\0", (1, 1), "UTF-16"),
            (b"\0a\0:", (1, 1), "UTF-16"),
            (b"a: 1\r\nb: \0\n", (2, 4), "a NUL byte"),
            (b"a: 1\rb: \x1b[0m\n", (2, 4), "U+001B"),
            (b"a: 1\n\xef\xbb\xbfb: 1\n", (2, 1), "byte order mark"),
            (b"a:\n  \xc2\xa0b: 1\n", (2, 3), "U+00A0"),
            (b"a: 1\n<<<<<<< HEAD\n", (2, 1), "merge conflict"),
        ] {
            let flaw = decode(bytes).unwrap_err();
            assert_eq!((flaw.line, flaw.column), place, "{bytes:?}: {}", flaw.message);
            assert!(flaw.message.contains(words), "{bytes:?}: {}", flaw.message);
        }
        for good in ["", "a: \u{a0}b\n", "a:\t1\r\n", "- \u{85}x"] {
            assert_eq!(decode(good.as_bytes()), Ok(good));
        }
    }
}
