//! Text of others: programs, servers and files say what they want, and a terminal must not act on it.

use std::iter::Peekable;
use std::str::Chars;

/// Characters of one line that are shown where a summary is read; the whole is kept elsewhere.
pub(crate) const SHOWN: usize = 400;

/// Returns text without control characters and escape sequences: a log line must not move our cursor.
#[must_use]
pub fn strip_control(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            skip_sequence(&mut characters);
        } else if character == '\t' || !(character.is_control() || turns(character)) {
            plain.push(character);
        }
    }
    plain
}

/// Returns one line of at most `limit` characters, free of control characters; what was cut off is counted.
#[must_use]
pub fn shortened(text: &str, limit: usize) -> String {
    let plain = strip_control(text);
    match plain.char_indices().nth(limit) {
        None => plain,
        Some((end, _)) => {
            let more = plain[end..].chars().count();
            format!("{}... ({more} more characters)", &plain[..end])
        }
    }
}

/// Skips what follows an escape character, as far as it is a sequence (ECMA-48 5.3 and 5.4).
fn skip_sequence(characters: &mut Peekable<Chars<'_>>) {
    match characters.peek() {
        Some('[') => {
            characters.next();
            // Parameters and intermediates, then one final byte from @ to ~. Anything else is no part of it.
            while characters.next_if(|inner| (' '..='?').contains(inner)).is_some() {}
            characters.next_if(|inner| ('@'..='~').contains(inner));
        }
        // A command string, such as a window's title, ends with BEL or ESC \. One without an end hides nothing.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let mut ahead = characters.clone();
            while let Some(inner) = ahead.next() {
                if inner == '\u{7}' || (inner == '\u{1b}' && ahead.next_if_eq(&'\\').is_some()) {
                    *characters = ahead;
                    return;
                }
            }
        }
        _ => {
            if characters.next_if(|inner| (' '..='/').contains(inner)).is_some() {
                characters.next_if(|inner| ('0'..='~').contains(inner));
            } else {
                characters.next_if(|inner| ('0'..='?').contains(inner) || *inner == 'c');
            }
        }
    }
}

/// Says whether a character turns the direction of what follows: a line would read otherwise than it is.
const fn turns(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_move_the_cursor() {
        for (text, plain) in [
            ("plain\ttext", "plain\ttext"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("a\rb\u{8}c\u{7}", "abc"),
            ("\u{1b}[2J\u{1b}[Hgone", "gone"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}]0;no end", "]0;no end"),
            ("\u{1b}(Bascii\u{1b}7\u{1b}cx", "asciix"),
            ("\u{9b}31mone byte", "31mone byte"),
            ("\u{1b}[31", ""),
            ("\u{1b}[3\u{e9}", "\u{e9}"),
            ("safe\u{202e}esrever", "safeesrever"),
            ("\u{1b}", ""),
            ("d\u{e9}j\u{e0} vu", "d\u{e9}j\u{e0} vu"),
        ] {
            assert_eq!(strip_control(text), plain, "{text:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("\u{1b}[1mlonger\u{1b}[0m", 4), "long... (2 more characters)");
        assert_eq!(shortened(&"\u{e9}".repeat(10), 3), "\u{e9}\u{e9}\u{e9}... (7 more characters)");
    }
}
