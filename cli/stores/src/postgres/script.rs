//! A migration's text taken apart into statements, as PostgreSQL's own tools do it.
//!
//! Each statement is sent by itself, so that the one which fails can be told, and so that those which refuse to run in
//! a transaction do not find themselves in the one that several statements of one message make.

use std::ops::Range;

/// A piece of SQL that is no space and no comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A key word or a bare name.
    Word,
    /// A name in double quotes.
    Name,
    /// A string, between quotes or dollars.
    Literal,
    /// Anything else.
    Mark,
}

#[derive(Debug, Clone)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    at: Range<usize>,
}

impl Token<'_> {
    fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// The name it is, if it is one, as the server keeps it.
    fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_lowercase()),
            Kind::Name => Some(self.text.trim_matches('"').replace("\"\"", "\"")),
            Kind::Literal | Kind::Mark => None,
        }
    }
}

/// One statement of a file.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    /// Its text, without the comments before it.
    pub(super) text: &'a str,
    tokens: Vec<Token<'a>>,
}

impl Statement<'_> {
    fn begins(&self, words: &[&str]) -> bool {
        self.tokens.len() >= words.len() && words.iter().zip(&self.tokens).all(|(word, token)| token.is(word))
    }

    fn has(&self, words: &[&str]) -> bool {
        self.tokens
            .windows(words.len())
            .any(|tokens| words.iter().zip(tokens).all(|(word, token)| token.is(word)))
    }

    /// Says whether it begins or ends a transaction. A way back to a savepoint stays inside one.
    pub(super) fn ends_transaction(&self) -> bool {
        let to_savepoint = ["", "WORK", "TRANSACTION"].iter().any(|noise| match noise.is_empty() {
            true => self.begins(&["ROLLBACK", "TO"]),
            false => self.begins(&["ROLLBACK", noise, "TO"]),
        });
        let ends =
            ["BEGIN", "START", "COMMIT", "END", "ABORT", "ROLLBACK"].iter().any(|word| self.begins(&[word]));
        (ends && !to_savepoint) || self.begins(&["PREPARE", "TRANSACTION"])
    }

    /// Says whether it wants rows from the client, or gives the session's lock away.
    pub(super) fn needs_a_terminal(&self) -> bool {
        self.begins(&["DISCARD"])
            || (self.begins(&["COPY"]) && (self.has(&["STDIN"]) || self.has(&["STDOUT"])))
    }

    /// Says whether doing it again after it was done fails.
    pub(super) fn is_unrepeatable(&self) -> bool {
        let makes = ["CREATE", "DROP", "ALTER"].iter().any(|word| self.begins(&[word]));
        makes
            && !self.has(&["IF", "EXISTS"])
            && !self.has(&["IF", "NOT", "EXISTS"])
            && !self.has(&["OR", "REPLACE"])
    }

    /// Says whether it holds a password in clear: what the server says of it may repeat it.
    pub(super) fn holds_password(&self) -> bool {
        self.tokens.windows(2).any(|pair| pair[0].is("PASSWORD") && pair[1].kind == Kind::Literal)
    }

    /// Returns its first line, cut to what people read, with a password as stars.
    pub(super) fn shown(&self) -> String {
        let mut text = self.text.to_owned();
        let start = self.tokens.first().map_or(0, |token| token.at.start);
        for pair in self.tokens.windows(2).rev() {
            if pair[0].is("PASSWORD") && pair[1].kind == Kind::Literal {
                text.replace_range(pair[1].at.start - start..pair[1].at.end - start, "'***'");
            }
        }
        text.lines().next().unwrap_or_default().trim().chars().take(120).collect()
    }

    /// Returns every name in it.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.tokens.iter().filter_map(Token::name)
    }
}

/// Takes a file apart. What is left open at its end belongs to the last statement; the server says what it thinks of it.
pub(super) fn statements(sql: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let mut current: Vec<Token<'_>> = Vec::new();
    let mut parentheses = 0usize;
    // Inside the body of `CREATE FUNCTION ... BEGIN ATOMIC ... END`, which holds statements of its own.
    let mut body = 0usize;
    for token in tokens(sql) {
        match token.text {
            "(" if token.kind == Kind::Mark => parentheses += 1,
            ")" if token.kind == Kind::Mark => parentheses = parentheses.saturating_sub(1),
            _ if token.is("ATOMIC") && current.last().is_some_and(|last| last.is("BEGIN")) => body += 1,
            _ if token.is("CASE") && body > 0 => body += 1,
            _ if token.is("END") => body = body.saturating_sub(1),
            _ => {}
        }
        let ends = token.kind == Kind::Mark && token.text == ";" && parentheses == 0 && body == 0;
        current.push(token);
        if ends {
            found.extend(statement(sql, std::mem::take(&mut current)));
        }
    }
    found.extend(statement(sql, current));
    found
}

fn statement<'a>(sql: &'a str, tokens: Vec<Token<'a>>) -> Option<Statement<'a>> {
    let (first, last) = (tokens.first()?, tokens.last()?);
    let text = &sql[first.at.start..last.at.end];
    (text != ";").then_some(Statement { text, tokens })
}

fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += gap(&sql[at..]);
        let rest = &sql[at..];
        let first = rest.bytes().next()?;
        let (kind, length) = match first {
            b'\'' => (Kind::Literal, quoted(rest, 0, false)),
            b'"' => (Kind::Name, quoted(rest, 0, false)),
            b'e' | b'E' if rest[1..].starts_with('\'') => (Kind::Literal, quoted(rest, 1, true)),
            b'$' => dollars(rest).map_or((Kind::Mark, 1), |length| (Kind::Literal, length)),
            _ if is_name_start(first) => {
                (Kind::Word, run(rest, |byte| is_name_start(byte) || byte.is_ascii_digit() || byte == b'$'))
            }
            // A number with its exponent: the `E` of `1E'` begins no string.
            _ if first.is_ascii_digit() => {
                (Kind::Mark, run(rest, |byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte)))
            }
            _ => (Kind::Mark, 1),
        };
        let token = Token { kind, text: &rest[..length], at: at..at + length };
        at += length;
        Some(token)
    })
}

const fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn run(text: &str, belongs: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|byte| !belongs(byte)).unwrap_or(text.len())
}

/// Returns the length of the space and the comments that a text begins with. Block comments hold others.
fn gap(text: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += block_comment(rest);
        } else if let Some(space) = rest.chars().next().filter(|c| c.is_whitespace() || *c == '\u{feff}') {
            at += space.len_utf8();
        } else {
            return at;
        }
    }
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Returns the length of a quoted text whose quote stands at `open`; a doubled quote is part of it.
fn quoted(text: &str, open: usize, backslashes: bool) -> usize {
    let bytes = text.as_bytes();
    let quote = bytes[open];
    let mut at = open + 1;
    while at < bytes.len() {
        if backslashes && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return at + 1;
        }
    }
    text.len()
}

/// Returns the length of `$tag$ ... $tag$`, if that is what the text begins with.
fn dollars(text: &str) -> Option<usize> {
    let tag = 1 + run(&text[1..], |byte| is_name_start(byte) || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    if bytes.get(tag) != Some(&b'$') || bytes[1].is_ascii_digit() {
        return None;
    }
    let delimiter = &text[..=tag];
    let rest = &text[tag + 1..];
    Some(rest.find(delimiter).map_or(text.len(), |end| tag + 1 + end + delimiter.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        statements(sql).iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn a_semicolon_ends_a_statement_only_where_the_server_would_see_it() {
        for (sql, wanted) in [
            ("SELECT 1; SELECT 2", &["SELECT 1;", "SELECT 2"][..]),
            ("-- a; b\nSELECT 1;;\n/* x; /* y; */ z; */", &["SELECT 1;"]),
            (
                "SELECT ';', E'\\';', \"a;\"\"b\";SELECT 2;",
                &["SELECT ';', E'\\';', \"a;\"\"b\";", "SELECT 2;"],
            ),
            (
                "DO $$BEGIN; END$$; DO $a$ $$;$$ ; $a$;SELECT $1;",
                &["DO $$BEGIN; END$$;", "DO $a$ $$;$$ ; $a$;", "SELECT $1;"],
            ),
            (
                "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3",
                &["CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);", "SELECT 3"],
            ),
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3;",
                &[
                    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;",
                    "SELECT 3;",
                ],
            ),
            ("SELECT 'it''s;'; SELECT 1E'x", &["SELECT 'it''s;';", "SELECT 1E'x"]),
            ("SELECT 'äö;'; größe;", &["SELECT 'äö;';", "größe;"]),
            ("\u{feff}SELECT 1", &["SELECT 1"]),
            ("", &[]),
        ] {
            assert_eq!(texts(sql), wanted, "{sql}");
        }
    }

    #[test]
    fn what_touches_the_transaction_is_known() {
        for (sql, wanted) in [
            ("BEGIN", true),
            ("start transaction", true),
            ("/* c */ Commit;", true),
            ("END", true),
            ("ROLLBACK", true),
            ("ROLLBACK AND CHAIN", true),
            ("PREPARE TRANSACTION 'x'", true),
            ("ROLLBACK TO s", false),
            ("ROLLBACK TRANSACTION TO SAVEPOINT s", false),
            ("SAVEPOINT s", false),
            ("PREPARE p AS SELECT 1", false),
            ("DO $$ BEGIN COMMIT; END $$", false),
        ] {
            assert_eq!(statements(sql)[0].ends_transaction(), wanted, "{sql}");
        }
    }

    #[test]
    fn a_password_is_shown_as_stars() {
        let sql = "-- who\nCREATE ROLE a PASSWORD 'hunter2' LOGIN;";
        let statement = &statements(sql)[0];
        assert!(statement.holds_password());
        assert_eq!(statement.shown(), "CREATE ROLE a PASSWORD '***' LOGIN;");
        assert!(!statements("SELECT password FROM a")[0].holds_password());
    }

    #[test]
    fn what_cannot_be_done_twice_is_known() {
        for (sql, wanted) in [
            ("CREATE INDEX CONCURRENTLY a ON b (c)", true),
            ("CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON b (c)", false),
            ("DROP INDEX CONCURRENTLY IF EXISTS a", false),
            ("ALTER TYPE t ADD VALUE 'IF NOT EXISTS'", true),
            ("VACUUM a", false),
        ] {
            assert_eq!(statements(sql)[0].is_unrepeatable(), wanted, "{sql}");
        }
    }
}
