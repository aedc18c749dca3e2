//! Secrets written out: what stands in this file stands in plans, releases, journals and version control too.

use super::{Checker, service_path};
use crate::mask::url_passwords;
use crate::yaml::{KeyPath, Node, Value};

/// Endings of variable names whose values are secrets.
const SECRET_NAMES: [&str; 8] =
    ["PASSWORD", "PASSWD", "_SECRET", "_TOKEN", "_API_KEY", "_PRIVATE_KEY", "_ACCESS_KEY", "PASSPHRASE"];
/// How keys and tokens of well-known issuers begin.
const KNOWN_BEGINNINGS: [&str; 8] =
    ["ghp_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "sk_live_", "rk_live_", "npm_"];

pub(super) fn check(checker: &mut Checker<'_>) {
    const OF_SERVICE: &str = "expected {secret: NAME}; declare it under `secrets`";
    const OF_LOAD: &str = "expected {{secret:NAME}}; declare it under `secrets`";
    for (name, service) in checker.services() {
        let path = service_path(name);
        for entry in service.get("env").map_or(&[][..], Node::entries) {
            let path = path.key("env").key(&entry.key);
            if let Some(what) =
                entry.node.text().and_then(|text| secret_in(text).or_else(|| named(&entry.key, text)))
            {
                checker.tell(&entry.node, &path, format!("found {what}, {OF_SERVICE}"));
            }
        }
        for (index, argument) in service.get("command").map_or(&[][..], Node::items).iter().enumerate() {
            if let Some(what) = argument.text().and_then(secret_in) {
                let message = format!("found {what}, expected it in a variable of `env` as {{secret: NAME}}");
                checker.tell(argument, &path.key("command").item(index), message);
            }
        }
    }
    for entry in checker.map("load") {
        below(checker, &entry.node, &KeyPath::default().key("load").key(&entry.key), OF_LOAD);
    }
    for (map, expected) in [
        ("targets", "expected an address without one; the client's own configuration has it"),
        ("stores", "expected a setting without one; the server has its own"),
    ] {
        for entry in checker.map(map) {
            below(checker, &entry.node, &KeyPath::default().key(map).key(&entry.key), expected);
        }
    }
}

/// Looks at every text below a node.
fn below(checker: &mut Checker<'_>, node: &Node, path: &KeyPath, expected: &str) {
    match &node.value {
        Value::Null => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                below(checker, item, &path.item(index), expected);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                below(checker, &entry.node, &path.key(&entry.key), expected);
            }
        }
        Value::Scalar { text, .. } => {
            if let Some(what) = secret_in(text) {
                checker.tell(node, path, format!("found {what}, {expected}"));
            }
        }
    }
}

/// Says what secret a text holds for all to see. The text itself is never told.
fn secret_in(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    // `$NAME` is for the shell of the service to fill in.
    let written_out = |password: &str| !password.is_empty() && !password.starts_with(['{', '$']);
    if url_passwords(text).any(written_out) {
        return Some("a password in a URL");
    }
    let word = text.strip_prefix("Bearer ").unwrap_or(text);
    let is_long = word.len() >= 20 && !word.contains(|c: char| c.is_whitespace() || c == '{');
    let of_issuer = KNOWN_BEGINNINGS.iter().any(|begin| word.starts_with(begin));
    let of_aws = word.starts_with("AKIA") && word.bytes().all(|b| b.is_ascii_alphanumeric());
    let signed = word.starts_with("eyJ") && word.split('.').count() == 3;
    (is_long && (of_issuer || of_aws || signed)).then_some("a token")
}

/// Says that a variable is a secret by its name, when its value is written out.
fn named(name: &str, text: &str) -> Option<&'static str> {
    let written_out = !text.trim().is_empty() && !text.contains('{') && !text.starts_with('/');
    (written_out && SECRET_NAMES.iter().any(|ending| name.ends_with(ending)))
        .then_some("a secret written out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_looks() {
        for (text, expected) in [
            ("postgres://shop:hunter2@db:5432/shop", Some("a password in a URL")),
            ("redis://:hunter2@cache", Some("a password in a URL")),
            ("first http://db/ then redis://:hunter2@cache", Some("a password in a URL")),
            ("postgres://shop@db/shop", None),
            ("psql postgres://shop:$PGPASSWORD@db/shop", None),
            ("ssh://ops@swarm1", None),
            ("https://x.example.com/a:b@c", None),
            ("http://user:{{secret:x}}@host", None),
            ("-----BEGIN PRIVATE KEY-----\nMII", Some("a private key")),
            ("Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", Some("a token")),
            ("ghp_0123456789abcdefghij", Some("a token")),
            ("Bearer {{token}}", None),
            ("ghp_short", None),
        ] {
            assert_eq!(secret_in(text), expected, "{text}");
        }
        assert!(named("DB_PASSWORD", "hunter2").is_some());
        assert!(named("DB_PASSWORD", "{file:routes.json}").is_none());
        assert!(named("DB_PASSWORD_FILE", "hunter2").is_none());
        assert!(named("TOKEN_TTL", "60").is_none());
    }
}
