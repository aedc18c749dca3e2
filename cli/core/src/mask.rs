//! Mask: stars secret values in texts of others, before anything of them is kept.
//!
//! A program prints what it likes, also its password, also as base64 in a header. Whoever keeps such a text passes it
//! through a [`Mask`] that knows the values. It finds a value as it is, line by line (keys in PEM form), as JSON and
//! URLs escape it, in hexadecimal and in base64 at any offset, and stars passwords in URLs whatever they are. What it
//! cannot find is a value that a program has encrypted, compressed or cut in two.

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::Value;

/// What stands in a secret's place.
pub const STARS: &str = "***";
/// Below this many bytes a value is starred as a whole word only: it would tear every other word apart.
const SHORT: usize = 6;
/// Below this many bytes a line of a longer value is not a secret by itself.
const LINE: usize = 12;

/// Knows secret values and stars them.
#[derive(Default, Clone)]
pub struct Mask {
    /// Starred wherever they stand, longest first.
    anywhere: Vec<String>,
    /// Starred where they are a whole word.
    words: Vec<String>,
    /// Pieces of encoded values; the whole encoded word around one is starred.
    encoded: Vec<String>,
}

impl Mask {
    /// Learns a value and the forms in which it may be written.
    pub fn learn(&mut self, value: &str) {
        let value = value.trim();
        if value.is_empty() {
            return;
        }
        if value.len() < SHORT {
            self.words.push(value.to_owned());
            return;
        }
        let json = Value::from(value).to_string();
        let percent = percent_encoded(value);
        let lines = value.lines().map(str::trim).filter(|l| l.len() >= LINE && !l.starts_with("-----"));
        self.anywhere.extend(lines.map(ToOwned::to_owned));
        self.anywhere.extend([value.to_owned(), json[1..json.len() - 1].to_owned(), percent]);
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.encoded.extend([hex.to_uppercase(), hex]);
        self.encoded.extend((0..3).filter_map(|offset| base64_core(value.as_bytes(), offset)).flatten());
        for list in [&mut self.anywhere, &mut self.encoded] {
            list.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            list.dedup();
        }
    }

    /// Learns the values of variables that are called like a secret, in whatever way a payload nests them.
    pub fn learn_variables(&mut self, payload: &Value) {
        visit(payload, false, &mut |text| {
            if text.len() >= SHORT && !text.contains('{') {
                self.learn(text);
            }
        });
    }

    /// Returns the text with stars in place of every secret.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut masked = without_passwords(text);
        for value in self.anywhere.iter().filter(|value| text.contains(value.as_str())) {
            masked = masked.replace(value.as_str(), STARS);
        }
        for piece in &self.encoded {
            while let Some(at) = masked.find(piece.as_str()) {
                let before = masked[..at].trim_end_matches(is_base64).len();
                let after = at + piece.len();
                let rest = masked[after..].trim_start_matches(is_base64).len();
                let end = masked.len() - rest;
                masked.replace_range(before..end, STARS);
            }
        }
        for word in &self.words {
            masked = without_word(&masked, word);
        }
        masked
    }

    /// Returns a value with stars in place of every secret, and of whatever a variable called like one says.
    #[must_use]
    pub fn value(&self, value: &Value) -> Value {
        self.starred(value, false)
    }

    fn starred(&self, value: &Value, secret: bool) -> Value {
        match value {
            Value::String(_) | Value::Number(_) if secret => STARS.into(),
            Value::String(text) => self.text(text).into(),
            Value::Array(list) => list.iter().map(|each| self.starred(each, secret)).collect(),
            Value::Object(map) => {
                map.iter().map(|(key, each)| (key.clone(), self.starred(each, below(key, secret)))).collect()
            }
            other => other.clone(),
        }
    }
}

/// Calls back for each text that a variable called like a secret holds.
fn visit(value: &Value, secret: bool, found: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) if secret => found(text),
        Value::Array(list) => list.iter().for_each(|each| visit(each, secret, found)),
        Value::Object(map) => map.iter().for_each(|(key, each)| visit(each, below(key, secret), found)),
        _ => {}
    }
}

/// Says whether what lies below a key is a secret. A reference names its secret and is none.
fn below(key: &str, secret: bool) -> bool {
    is_secret_name(key) || (secret && !key.starts_with("secret") && !key.starts_with("store"))
}

/// Says whether a variable is called like one that holds a secret: `DB_PASSWORD`, `API_KEY`, `password`.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let last = last_word(name).to_uppercase();
    let words = [
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "PASS",
        "PWD",
        "SECRET",
        "SECRETS",
        "TOKEN",
        "TOKENS",
        "CREDENTIAL",
        "CREDENTIALS",
        "KEY",
        "KEYS",
    ];
    // `secret`, `key` and `token` alone are ordinary keys; with something before them, or in capitals, they are not.
    let whole = last.len() == name.len() && name.chars().all(char::is_lowercase);
    let word = words.contains(&last.as_str()) || ["PASSWORD", "PASSWD"].iter().any(|end| last.ends_with(end));
    word && (!whole || last.starts_with("PASS"))
}

/// Returns the last word of a name: behind the last separator, or the last capital of `camelCase`.
fn last_word(name: &str) -> &str {
    let last = name.rsplit(['_', '-', '.']).next().unwrap_or_default();
    let hump = last
        .char_indices()
        .zip(last.chars().skip(1))
        .filter(|((_, a), b)| a.is_lowercase() && b.is_uppercase());
    hump.last().map_or(last, |((at, a), _)| &last[at + a.len_utf8()..])
}

/// Stars the password in each `scheme://user:password@host`.
fn without_passwords(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        rest = after;
        if let Some(password) = leading_password(after, in_prose) {
            masked.extend([&after[..password.start], STARS]);
            rest = &after[password.end..];
        }
    }
    masked.push_str(rest);
    masked
}

/// Returns the passwords of the URLs in a value, as they stand there. Nothing but the URL's own signs ends them there:
/// a value is no prose.
pub(crate) fn url_passwords(value: &str) -> impl Iterator<Item = &str> {
    value.match_indices("://").filter_map(|(at, _)| {
        let after = &value[at + 3..];
        leading_password(after, in_value).map(|password| &after[password])
    })
}

fn in_value(c: char) -> bool {
    "/?#".contains(c)
}

fn in_prose(c: char) -> bool {
    in_value(c) || c.is_whitespace() || "\"'<>`|\\".contains(c)
}

/// Returns where the password stands in what follows the `://` of a URL; `ends` is what ends host and port.
fn leading_password(after: &str, ends: fn(char) -> bool) -> Option<Range<usize>> {
    let authority = &after[..after.find(ends).unwrap_or(after.len())];
    let end = authority.rfind('@')?;
    let start = authority[..end].find(':')? + 1;
    Some(start..end)
}

/// Stars a word where neither a letter nor a digit is beside it.
fn without_word(text: &str, word: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(at) = rest.find(word) {
        let end = at + word.len();
        let left = rest[..at].chars().next_back().or(before);
        let right = rest[end..].chars().next();
        let alone = [left, right].into_iter().flatten().all(|c: char| !c.is_alphanumeric());
        masked.push_str(&rest[..at]);
        masked.push_str(if alone { STARS } else { word });
        before = rest[..end].chars().next_back();
        rest = &rest[end..];
    }
    masked.push_str(rest);
    masked
}

const fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_' | '=')
}

fn percent_encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().fold(String::new(), |mut text, byte| {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// Returns the characters that base64 has for these bytes whatever stands around them, `offset` bytes into a group:
/// in the standard alphabet and in that of URLs. None when too few of them are certain.
fn base64_core(bytes: &[u8], offset: usize) -> Option<[String; 2]> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padded: Vec<u8> = std::iter::repeat_n(0, offset).chain(bytes.iter().copied()).collect();
    let (first, end) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
    let character = |at: usize| {
        let bit = |n: usize| (padded[n / 8] >> (7 - n % 8)) & 1;
        let index = (0..6).fold(0, |index, n| (index << 1) | bit(at * 6 + n));
        char::from(ALPHABET[usize::from(index)])
    };
    let text: String = (first..end).map(character).collect();
    let in_urls = text.replace('+', "-").replace('/', "_");
    (text.len() >= SHORT).then_some([text, in_urls])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mask(values: &[&str]) -> Mask {
        let mut mask = Mask::default();
        values.iter().for_each(|value| mask.learn(value));
        mask
    }

    #[test]
    fn a_value_is_starred_in_every_form() {
        let mask = mask(&["can\"ary/value+42"]);
        for (text, masked) in [
            ("plain can\"ary/value+42.", "plain ***."),
            (r#"{"k":"can\"ary/value+42"}"#, r#"{"k":"***"}"#),
            ("a?b=can%22ary%2Fvalue%2B42&c", "a?b=***&c"),
            ("63616e226172792f76616c75652b3432", "***"),
            ("63616E226172792F76616C75652B3432", "***"),
            // `can"ary/value+42`, `u:can"ary/value+42` and `me:can"ary/value+42!` in base64.
            ("Authorization: Y2FuImFyeS92YWx1ZSs0Mg==", "Authorization: ***"),
            ("Basic dTpjYW4iYXJ5L3ZhbHVlKzQy x", "Basic *** x"),
            ("Basic bWU6Y2FuImFyeS92YWx1ZSs0MiE=", "Basic ***"),
            ("nothing of it", "nothing of it"),
        ] {
            assert_eq!(mask.text(text), masked, "{text}");
        }
    }

    #[test]
    fn a_key_is_starred_line_by_line() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGF\nzdDEyMzQ1Njc4OTBhYmNkZWZ\n-----END PRIVATE KEY-----\n";
        let mask = mask(&[pem]);
        assert_eq!(mask.text("key: MC4CAQAwBQYDK2VwBCIEIGF"), "key: ***");
        assert_eq!(mask.text(&format!("{:?}", pem.trim())), format!("\"{STARS}\""));
        assert_eq!(mask.text("-----BEGIN PRIVATE KEY-----"), "-----BEGIN PRIVATE KEY-----");
    }

    #[test]
    fn a_short_value_is_starred_as_a_word_and_an_empty_one_never() {
        let mask = mask(&["", " \n", "42", "ab"]);
        for (text, masked) in [
            ("42", "***"),
            ("is 42, 142 and 42nd", "is ***, 142 and 42nd"),
            ("4242", "4242"),
            ("ab cab ab", "*** cab ***"),
            ("", ""),
        ] {
            assert_eq!(mask.text(text), masked, "{text}");
        }
    }

    #[test]
    fn a_value_inside_another_does_not_leave_the_rest() {
        let mask = mask(&["hunter2", "hunter2-and-more"]);
        assert_eq!(mask.text("hunter2-and-more hunter2"), "*** ***");
    }

    #[test]
    fn passwords_of_urls_go_whatever_they_are() {
        let mask = Mask::default();
        for (text, masked) in [
            ("postgres://app:s3cret@db:5432/app", "postgres://app:***@db:5432/app"),
            ("to redis://:pw@host, then http://a:b@c", "to redis://:***@host, then http://a:***@c"),
            ("amqp://u:p@ss@host/x", "amqp://u:***@host/x"),
            ("http://127.0.0.1:8080/x@y:z", "http://127.0.0.1:8080/x@y:z"),
            ("http://user@host", "http://user@host"),
            ("://", "://"),
        ] {
            assert_eq!(mask.text(text), masked, "{text}");
        }
    }

    #[test]
    fn variables_called_like_a_secret_are_starred_and_references_are_not() {
        let payload = json!({"spec": {"env": {
            "DB_PASSWORD": {"text": "swordfish"},
            "API_KEY": "k3y-of-mine",
            "JWT_KEYS": {"secret_value": "jwt-keys"},
            "JWT_KEYS_FILE": {"secret_file": "jwt-keys"},
            "SESSION_TOKEN": {"text": "{port}"},
            "LOG_LEVEL": {"text": "swordfish is logged"},
            "TOKEN_TTL": 3600,
        }}});
        let mut mask = Mask::default();
        mask.learn_variables(&payload);
        assert_eq!(
            mask.value(&payload),
            json!({"spec": {"env": {
                "DB_PASSWORD": {"text": "***"},
                "API_KEY": "***",
                "JWT_KEYS": {"secret_value": "jwt-keys"},
                "JWT_KEYS_FILE": {"secret_file": "jwt-keys"},
                "SESSION_TOKEN": {"text": "***"},
                "LOG_LEVEL": {"text": "*** is logged"},
                "TOKEN_TTL": 3600,
            }}})
        );
        assert_eq!(mask.text("jwt-keys k3y-of-mine {port}"), "jwt-keys *** {port}");
    }

    #[test]
    fn names_that_hold_secrets() {
        for name in [
            "DB_PASSWORD",
            "TOKEN",
            "API_KEY",
            "aws.SECRET",
            "password",
            "SIGNING-KEYS",
            "db_password",
            "api_token",
            "apiKey",
            "client_secret",
            "MYPASSWORD",
            "dbPassword",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["TOKEN_TTL", "JWT_KEYS_FILE", "secret", "key", "KEYCLOAK_URL", "LOG_LEVEL", ""] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
