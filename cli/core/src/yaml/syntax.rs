//! Syntax errors in the words of who wrote the file: what is there, and what was meant most likely.
//!
//! The parser says at which character it could not go on; the mistake is often a line or a bracket earlier.

use saphyr_parser::Marker;

use super::limit::DEEPEST;
use super::text::lines;

/// A mistake with its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

/// What an alias, an anchor or a tag is told with.
pub(super) fn not_data(what: &str, sign: char) -> String {
    format!(
        "found {what}, expected plain data; write the value out, or quote a text that begins with `{sign}`"
    )
}

/// Explains an error of the parser.
pub(super) fn explain(text: &str, at: Marker, info: &str) -> Mistake {
    Place { lines: lines(text).collect(), line: at.line().max(1), column: at.col() + 1 }.explain(info)
}

struct Place<'a> {
    lines: Vec<&'a str>,
    line: usize,
    column: usize,
}

impl<'a> Place<'a> {
    fn explain(&self, info: &str) -> Mistake {
        // The parser often notices on a line beside the mistake.
        let beside =
            [self.line, self.line.saturating_sub(1), self.line + usize::from(info.contains("a tab"))];
        for number in beside {
            let indentation = self.text_of(number).chars().take_while(|c| c.is_whitespace());
            if let Some(column) = indentation.into_iter().position(|c| c == '\t') {
                return told(number, column + 1, "found a tab in the indentation, expected spaces");
            }
        }
        if let Some(message) = self.of_character(info).or_else(|| of_block_text(info)) {
            return told(self.line, self.column, &message);
        }
        if info.contains("flow mapping, did not")
            || info.contains("flow sequence, expected")
            || info == "invalid indentation in flow construct"
        {
            return self.bracket();
        }
        match info {
            "mapping values are not allowed in this context" => self.second_colon(),
            "simple key expect ':'" | "simple key expected" => self.no_colon(),
            "invalid indentation" | "while parsing a block mapping, did not find expected key" => {
                self.misplaced()
            }
            "block sequence entries are not allowed in this context" if self.before().contains(": ") => {
                self.here("found a list item behind a key, expected it on a line of its own")
            }
            "block sequence entries are not allowed in this context" => {
                self.here("found a list item below a value, expected it below a key that has no value yet")
            }
            "while parsing a block collection, did not find expected '-' indicator" => {
                self.here("found a line that is no list item, expected `- ` as before it")
            }
            "while parsing a node, did not find expected node content" => {
                self.here("found no value, expected one: is there a comma or a bracket too many?")
            }
            "did not find expected <document start>" => self
                .here("found more behind the end of the map, expected nothing: is there a bracket too many?"),
            "recursion limit exceeded" => {
                self.here(&format!("found more than {DEEPEST} levels, expected a flatter file"))
            }
            _ if info.contains("tab") && self.tab().is_some() => self.tab_inside(),
            _ => self.here(&format!("not valid YAML: {info}")),
        }
    }

    /// Errors about a character or two, at the place the parser names.
    fn of_character(&self, info: &str) -> Option<String> {
        let quotes =
            |sign: char| format!("found a text that begins with `{sign}`, expected quotes around it");
        let sign = self.character();
        Some(match info {
            "while parsing node, found unknown anchor" => not_data("an alias (`*name`)", '*'),
            _ if info.starts_with("unexpected character") => quotes(sign),
            _ if info.starts_with("while scanning an anchor or alias") => quotes(sign),
            _ if info.starts_with("while scanning a directive") || info.starts_with("while scanning a YAML") => {
                quotes('%')
            }
            _ if info.contains("a tag") || info.contains("TAG") || info.contains("handle wasn't declared") => {
                not_data("a tag (`!name`)", '!')
            }
            _ if info.starts_with("while scanning a quoted scalar")
                || info == "invalid indentation in quoted scalar" =>
            {
                format!("found a quote ({sign}) that is never closed, expected another at the end of the text")
            }
            "invalid trailing content after double-quoted scalar" => {
                "found text behind the closing quote, expected the end of the value; quote the whole value, \
                 and write a quote in single quotes twice"
                    .to_owned()
            }
            "while parsing a quoted scalar, found unknown escape character" => {
                "found an unknown escape in double quotes, expected one such as \\n or \\\\; in single quotes a \
                 backslash stands for itself"
                    .to_owned()
            }
            _ if info.starts_with("while parsing a quoted scalar") => {
                "found an escape without its hexadecimal digits, expected \\xHH or \\uHHHH".to_owned()
            }
            "plain scalar cannot start with '-' followed by ,[]{}" | "unexpected end of plain scalar" => quotes(sign),
            r#""-" is only valid inside a block"# => {
                "found a list item (`- `) inside brackets, expected items with commas between them".to_owned()
            }
            "':' may not precede any of `[{` in flow mapping" => {
                "found `:` without a space behind it, expected `key: value`".to_owned()
            }
            _ => return None,
        })
    }

    /// A bracket that is not closed, or a comma that is missing before the place.
    fn bracket(&self) -> Mistake {
        let Some((sign, line, column)) = self.unclosed() else {
            return self.here("found no `,` or closing bracket, expected one");
        };
        let close = if sign == '[' { ']' } else { '}' };
        let mut rest = self.lines.iter().skip(self.line - 1).enumerate().map(|(index, line)| {
            let line = if index == 0 { from_column(line, self.column) } else { line };
            line.trim_start()
        });
        let is_end = rest.all(|line| line.is_empty() || line.starts_with('#'));
        if is_end || self.line > line && self.before().trim().is_empty() {
            let message = format!("found `{sign}` without `{close}`, expected both");
            return told(line, column, &message);
        }
        self.here(&format!(
            "found no `,` or `{close}` before this, expected one; `{sign}` stands at line {line}, column {column}"
        ))
    }

    /// The innermost bracket that is open at the place. Quotes and comments count only where a value may begin.
    fn unclosed(&self) -> Option<(char, usize, usize)> {
        let mut open: Vec<(char, usize, usize)> = Vec::new();
        let mut quote = None;
        for (index, line) in self.lines.iter().take(self.line).enumerate() {
            let number = index + 1;
            let mut before = ' ';
            for (at, c) in line.chars().enumerate() {
                if number == self.line && at + 1 >= self.column {
                    break;
                }
                let begins = before.is_whitespace() || "[{,:".contains(before);
                match (quote, c) {
                    (Some(sign), _) if c == sign => quote = None,
                    (Some(_), _) => {}
                    (None, '#') if before.is_whitespace() => break,
                    (None, '"' | '\'') if begins => quote = Some(c),
                    (None, '[' | '{') if begins || !open.is_empty() => open.push((c, number, at + 1)),
                    (None, ']' | '}') => drop(open.pop()),
                    (None, _) => {}
                }
                before = c;
            }
        }
        open.pop()
    }

    fn second_colon(&self) -> Mistake {
        let before = self.before();
        if before.trim_start().trim_start_matches("- ").contains(": ") {
            return self
                .here("found a second `: ` in one value, expected quotes around a text that holds one");
        }
        // A line without a colon, or without a space behind it, is read as text that goes on.
        let above = (1..self.line).rev().find(|number| self.says(*number));
        let is_key = |line: &str| line.contains(": ") || line.trim_end().ends_with(':');
        if let Some(number) = above.filter(|number| !is_key(self.text_of(*number))) {
            return self.not_a_key(number);
        }
        let column = before.chars().take_while(|c| *c == ' ').count() + 1;
        let message = "found a key below a value, expected it in line with the key of that value";
        told(self.line, column, message)
    }

    /// Says whether there is more than a comment on a line.
    fn says(&self, number: usize) -> bool {
        let line = self.text_of(number).trim();
        !line.is_empty() && !line.starts_with('#')
    }

    /// The line without a colon is the last one that says anything before the place where it was noticed.
    fn no_colon(&self) -> Mistake {
        let here = self.says(self.line)
            && !self.text_of(self.line).contains(':')
            && !self.before().trim().is_empty();
        let above = || (1..self.line).rev().find(|number| self.says(*number));
        self.not_a_key(if here { self.line } else { above().unwrap_or(self.line) })
    }

    fn not_a_key(&self, number: usize) -> Mistake {
        let line = self.text_of(number);
        let column = line.chars().take_while(|c| c.is_whitespace()).count() + 1;
        let close = line.trim_start().split_once(':').filter(|(key, rest)| {
            !rest.starts_with(' ')
                && !rest.is_empty()
                && !key.is_empty()
                && !key.contains(char::is_whitespace)
        });
        match close {
            Some((key, rest)) if !rest.starts_with("//") => {
                let message =
                    format!("found `:` without a space behind it, expected `{key}: {}`", rest.trim());
                told(number, column, &message)
            }
            _ => told(number, column, "found a line without `: `, expected `key: value`"),
        }
    }

    fn misplaced(&self) -> Mistake {
        let line = self.text_of(self.line);
        let indentation = line.chars().take_while(|c| *c == ' ').count();
        let is_item = line.trim_start().starts_with("- ") || line.trim() == "-";
        if is_item && (indentation + 1..=indentation + 3).contains(&self.column) {
            let message = "found a list item among keys, expected a key; indent an item below its key";
            return told(self.line, indentation + 1, message);
        }
        if let sign @ (']' | '}') = self.character() {
            return self.here(&format!("found `{sign}` without a bracket that it closes, expected none"));
        }
        let known = self.lines.iter().take(self.line - 1).any(|line| {
            let own = line.chars().take_while(|c| *c == ' ').count();
            own == indentation && !line.trim().is_empty()
        });
        if self.column != indentation + 1 || known {
            return self.here(
                "found text that is no key, expected `key: value`; is a quote or a bracket missing before?",
            );
        }
        self.here(&format!("found an indentation of {indentation}, expected that of a key above"))
    }

    fn tab_inside(&self) -> Mistake {
        told(self.line, self.tab().unwrap_or(self.column), "found a tab, expected spaces")
    }

    fn tab(&self) -> Option<usize> {
        self.text_of(self.line).chars().position(|c| c == '\t').map(|at| at + 1)
    }

    fn here(&self, message: &str) -> Mistake {
        told(self.line, self.column, message)
    }

    fn text_of(&self, number: usize) -> &'a str {
        number.checked_sub(1).and_then(|index| self.lines.get(index)).copied().unwrap_or_default()
    }

    /// What stands on the line before the place.
    fn before(&self) -> &'a str {
        let line = self.text_of(self.line);
        line.get(..line.len() - from_column(line, self.column).len()).unwrap_or_default()
    }

    fn character(&self) -> char {
        from_column(self.text_of(self.line), self.column).chars().next().unwrap_or(' ')
    }
}

/// Errors about texts that begin with `|` or `>`.
fn of_block_text(info: &str) -> Option<String> {
    Some(match info {
        "while scanning a block scalar, did not find expected comment or line break" => {
            "found text behind `|` or `>`, expected it on the lines below; quote a text that begins with one"
                .to_owned()
        }
        "wrongly indented line in block scalar" => {
            "found a line indented less than the first of its text, expected the same or more".to_owned()
        }
        "while scanning a block scalar, found an indentation indicator equal to 0" => {
            "found an indentation of 0 behind `|` or `>`, expected 1 to 9 or none".to_owned()
        }
        _ => return None,
    })
}

fn told(line: usize, column: usize, message: &str) -> Mistake {
    Mistake { line, column, message: message.to_owned() }
}

/// What stands on a line from a column on.
fn from_column(line: &str, column: usize) -> &str {
    let at = line.char_indices().nth(column - 1).map_or(line.len(), |(at, _)| at);
    line.get(at..).unwrap_or_default()
}
