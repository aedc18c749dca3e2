//! The answer while maintenance is on: 503 with `Retry-After`, as JSON, or as a page for people.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;

use crate::headers::prefers_html;
use crate::table::Maintenance;

const DEFAULT_MESSAGE: &str = "We are working on the system and will be back soon.";

/// The answer to a public request.
pub(crate) fn answer(maintenance: &Maintenance, request: &HeaderMap) -> Response {
    let message = match maintenance.message.as_str() {
        "" => DEFAULT_MESSAGE,
        given => given,
    };
    let mut response = if prefers_html(request) {
        Html(page(message)).into_response()
    } else {
        let body = json!({"error": "maintenance", "message": message, "since": maintenance.since});
        ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    };
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(maintenance.retry_after_seconds.max(1)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn page(message: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Maintenance</title>\n\
         <h1>Maintenance</h1>\n<p>{}</p>\n</html>\n",
        escaped(message)
    )
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            other => out.push(other),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_text_not_markup() {
        assert!(
            page("<script>alert(1)</script> & more")
                .contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; more")
        );
    }
}
