//! What may cross the gateway: header hygiene in both directions, and paths that mean what they say.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that concern one connection only (RFC 9110 7.6.1), and their relatives.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Headers that a client must not be able to set: who it is, and the proof of an internal call.
const NOT_FROM_OUTSIDE: [HeaderName; 7] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-internal-token"),
];

/// Removes what concerns one connection only, with the headers that `Connection` names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Makes a client's headers fit for an upstream: its address is what we saw, never what it says.
pub(crate) fn for_upstream(headers: &mut HeaderMap, peer: IpAddr, upstream: &str) {
    remove_hop_by_hop(headers);
    for name in &NOT_FROM_OUTSIDE {
        headers.remove(name);
    }
    // Answered here already: the body is only asked for once an upstream is there.
    headers.remove(header::EXPECT);
    if let Some(host) = headers.remove(header::HOST) {
        headers.insert("x-forwarded-host", host);
    }
    insert(headers, header::HOST, upstream);
    insert(headers, HeaderName::from_static("x-forwarded-for"), &peer.to_canonical().to_string());
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// True for a request to change the protocol to WebSocket; other upgrades (h2c) are offers that may be ignored.
pub(crate) fn wants_websocket(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::UPGRADE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|text| text.to_ascii_lowercase().contains("websocket"))
}

/// True when a client would rather read HTML than JSON.
pub(crate) fn prefers_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (mut html, mut json) = (0.0_f32, 0.0_f32);
    for part in accept.split(',') {
        let mut pieces = part.split(';').map(str::trim);
        let kind = pieces.next().unwrap_or_default().to_ascii_lowercase();
        let quality =
            pieces.find_map(|piece| piece.strip_prefix("q=")).map_or(1.0, |text| text.parse().unwrap_or(0.0));
        match kind.as_str() {
            "text/html" | "application/xhtml+xml" => html = html.max(quality),
            "application/json" => json = json.max(quality),
            _ => {}
        }
    }
    html > json
}

/// True when a path has a segment that some server on the way might resolve to another path than we compared.
pub(crate) fn is_ambiguous(path: &str) -> bool {
    let decoded = decoded(path);
    decoded.bytes().any(|byte| byte == b'\\' || byte.is_ascii_control())
        || decoded.split('/').any(|segment| segment == "." || segment == "..")
}

/// The path with its percent escapes of ASCII characters undone once.
pub(crate) fn decoded(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(u8::is_ascii);
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &after[2..];
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(parse) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn a_client_cannot_say_who_it_is() {
        let mut map = headers(&[
            ("host", "api.example.com"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("x-internal-token", "guess"),
            ("connection", "close, x-secret"),
            ("x-secret", "dropped with the connection"),
            ("te", "trailers"),
            ("authorization", "Bearer kept"),
        ]);
        for_upstream(&mut map, "::ffff:192.0.2.7".parse().unwrap(), "127.0.0.1:3001");
        let mut left: Vec<(&str, &str)> =
            map.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                ("authorization", "Bearer kept"),
                ("host", "127.0.0.1:3001"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-host", "api.example.com"),
                ("x-forwarded-proto", "http"),
            ]
        );
    }

    #[test]
    fn only_who_prefers_html_gets_it() {
        let table = [
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", true),
            ("application/json", false),
            ("*/*", false),
            ("", false),
            ("text/html;q=0.5, application/json", false),
            ("text/html, application/json;q=0.9", true),
        ];
        for (accept, expected) in table {
            assert_eq!(prefers_html(&headers(&[("accept", accept)])), expected, "{accept}");
        }
    }

    #[test]
    fn paths_that_could_mean_another_are_told() {
        let table = [
            ("/api/products/1", false),
            ("/api/products/a%20b", false),
            ("/api/products/..", true),
            ("/api/products/%2e%2E/internal", true),
            ("/api/products/.%2e/internal", true),
            ("/api/products/..%2finternal", true),
            ("/api/products/%5cinternal", true),
            ("/api/products/a%00", true),
            ("/api/products/a..b", false),
            ("/api/products/100%", false),
            ("/api/products/%zz", false),
            ("/api/products/%é", false),
        ];
        for (path, expected) in table {
            assert_eq!(is_ambiguous(path), expected, "{path}");
        }
    }
}
