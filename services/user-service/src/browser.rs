//! The cookie that binds a MercadoLibre consent to the browser that began it. Without it an attacker could begin a
//! connection, consent with an account of its own, and have a victim's browser open the callback, or the other way
//! round (RFC 6749 section 10.12). The store knows only its hash.

use axum::http::{HeaderMap, header};

use crate::consent::{CONSENT_TTL, ConsentPage};
use crate::random::OpaqueToken;

/// Name of the cookie. A later start in the same browser replaces it, and the earlier consent with it.
const NAME: &str = "ml_connect";

/// The value of `Set-Cookie`: for the callback's folder, for as long as a consent may take, out of reach of scripts, and
/// sent along when MercadoLibre leads the browser back (`Lax`).
#[must_use]
pub fn cookie(page: &ConsentPage, token: &OpaqueToken) -> String {
    let secure = if page.redirect_uri.starts_with("https://") { "; Secure" } else { "" };
    format!(
        "{NAME}={}; HttpOnly; SameSite=Lax; Path={}; Max-Age={}{secure}",
        token.expose(),
        folder(&page.redirect_uri),
        CONSENT_TTL.as_secs(),
    )
}

/// Every cookie of this name that a request carries. Browsers send several when paths overlap.
pub fn presented(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == NAME).map(|(_, value)| value)
}

/// The path of an address without its last segment.
fn folder(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |start| &rest[start..]);
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    // A semicolon would end the attribute.
    if folder.is_empty() || folder.contains(';') { "/" } else { folder }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemEntropy;

    fn page(redirect_uri: &str) -> ConsentPage {
        ConsentPage {
            base: "https://auth.example.com".to_owned(),
            client_id: "1234".to_owned(),
            redirect_uri: redirect_uri.to_owned(),
        }
    }

    #[test]
    fn the_cookie_reaches_the_callback_and_nothing_else() {
        let token = OpaqueToken::generate(&SystemEntropy).unwrap();
        for (redirect, want) in [
            ("https://api.example.com/api/auth/ml/callback", "Path=/api/auth/ml; Max-Age=600; Secure"),
            ("http://127.0.0.1:8080/api/auth/ml/callback?x=/y", "Path=/api/auth/ml; Max-Age=600"),
            ("https://api.example.com/callback", "Path=/; Max-Age=600; Secure"),
            ("https://api.example.com", "Path=/; Max-Age=600; Secure"),
            ("https://api.example.com/a;b/callback", "Path=/; Max-Age=600; Secure"),
        ] {
            let want = format!("ml_connect={}; HttpOnly; SameSite=Lax; {want}", token.expose());
            assert_eq!(cookie(&page(redirect), &token), want, "{redirect}");
        }
    }

    #[test]
    fn every_cookie_of_the_name_is_read() {
        for (lines, want) in [
            (vec![], vec![]),
            (vec!["ml_connect=a"], vec!["a"]),
            (vec!["theme=dark; ml_connect=a; ml_connect=b"], vec!["a", "b"]),
            (vec!["ml_connect=a", "ml_connect=b=c"], vec!["a", "b=c"]),
            (vec!["xml_connect=a; ml_connect; ="], vec![]),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            assert_eq!(presented(&headers).collect::<Vec<_>>(), want, "{lines:?}");
        }
    }
}
