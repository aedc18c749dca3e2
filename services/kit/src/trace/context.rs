//! W3C trace context: the `traceparent` and `tracestate` headers, read strictly and written in one form.
//!
//! What cannot be read is dropped, never repaired: a request with a bad header begins a trace of its own.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};
use uuid::Uuid;

/// Header of the trace and the span that a call belongs to.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Header of what tracing systems add to it; passed on as it came.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Longest `tracestate` that is passed on, in bytes; more is dropped as a whole.
const STATE_BYTES: usize = 512;
/// Most entries of a `tracestate`.
const STATE_MEMBERS: usize = 32;
/// The one flag that version 00 gives a meaning to.
const SAMPLED: u8 = 0x01;

/// Id of a whole trace, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Id of one span in a trace, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    fn new() -> Self {
        Self(*Uuid::new_v4().as_bytes())
    }

    /// A number from 0 to 1 that every service draws alike from the same id.
    pub(super) fn share(self) -> f64 {
        let mut low = [0; 8];
        low.copy_from_slice(&self.0[8..]);
        // The two highest bits are the same in every id that we make.
        (u64::from_be_bytes(low) & (u64::MAX >> 2)) as f64 / (u64::MAX >> 2) as f64
    }
}

impl SpanId {
    pub(super) fn new() -> Self {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&Uuid::new_v4().as_bytes()[..8]);
        Self(bytes)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in a trace: what a call made from there carries along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether the trace is recorded; decided once, where it begins.
    pub sampled: bool,
    /// The `tracestate` that came with it.
    pub state: Option<String>,
}

/// The text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected 00-TRACE-SPAN-FLAGS in lower-case hexadecimal digits, 32, 16 and 2 of them, no id all zero"
)]
pub struct ContextError;

impl Context {
    /// The beginning of a new trace; whether it is recorded is up to `sampled`.
    pub(super) fn root(sampled: impl FnOnce(TraceId) -> bool) -> Self {
        let trace = TraceId::new();
        Self { trace, span: SpanId::new(), sampled: sampled(trace), state: None }
    }

    /// A new span in the same trace.
    pub(super) fn child(&self) -> Self {
        Self { span: SpanId::new(), ..self.clone() }
    }

    /// What came with a request; `None` when nothing usable did. A `tracestate` counts only beside a good `traceparent`.
    #[must_use]
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(&TRACEPARENT).iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let mut context: Self = parent.to_str().ok()?.parse().ok()?;
        context.state = state(headers);
        Some(context)
    }

    /// Puts it into the headers of a request in the place of what was there.
    pub fn put(&self, headers: &mut HeaderMap) {
        headers.remove(&TRACESTATE);
        headers.remove(&TRACEPARENT);
        if let Ok(value) = self.to_string().parse() {
            headers.insert(TRACEPARENT, value);
        }
        if let Some(value) = self.state.as_deref().and_then(|state| state.parse().ok()) {
            headers.insert(TRACESTATE, value);
        }
    }
}

/// Written as the `traceparent` of version 00.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl FromStr for Context {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, ContextError> {
        let bytes = text.as_bytes();
        let [version] = digits(bytes.get(..2).ok_or(ContextError)?)?;
        // A later version may say more behind a dash; what it says before that it says as this one.
        let fits = match version {
            0xff => false,
            0 => bytes.len() == LENGTH,
            _ => bytes.len() == LENGTH || bytes.get(LENGTH) == Some(&b'-'),
        };
        if !fits || bytes.len() < LENGTH || [2, 35, 52].iter().any(|dash| bytes[*dash] != b'-') {
            return Err(ContextError);
        }
        let trace: [u8; 16] = digits(&bytes[3..35])?;
        let span: [u8; 8] = digits(&bytes[36..52])?;
        let [flags] = digits(&bytes[53..55])?;
        if trace == [0; 16] || span == [0; 8] {
            return Err(ContextError);
        }
        Ok(Self { trace: TraceId(trace), span: SpanId(span), sampled: flags & SAMPLED != 0, state: None })
    }
}

/// `N` bytes from twice as many lower-case hexadecimal digits.
fn digits<const N: usize>(text: &[u8]) -> Result<[u8; N], ContextError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(ContextError),
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return Err(ContextError);
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

/// Every `tracestate` header as one, if all of it is a list of `key=value`.
fn state(headers: &HeaderMap) -> Option<String> {
    let lines: Option<Vec<&str>> =
        headers.get_all(&TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
    let text = lines?.join(",");
    let members: Vec<&str> = text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|one| !one.is_empty())
        .collect();
    let good = !members.is_empty() && members.len() <= STATE_MEMBERS && text.len() <= STATE_BYTES;
    (good && members.iter().all(|member| is_member(member))).then(|| members.join(","))
}

fn is_member(text: &str) -> bool {
    let Some((key, value)) = text.split_once('=') else { return false };
    let first = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let of_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let of_value = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=' && byte != b',';
    first
        && key.len() <= 256
        && key.bytes().all(of_key)
        && (1..=256).contains(&value.len())
        && value.bytes().all(of_value)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn only_a_whole_and_well_formed_parent_is_read() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        let table = [
            (good.clone(), Some(true)),
            (format!("00-{TRACE}-{SPAN}-00"), Some(false)),
            ("flags that have no meaning yet".into(), None),
            (format!("00-{TRACE}-{SPAN}-03"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-fe"), Some(false)),
            // Later versions: the same beginning, and more behind a dash.
            (format!("01-{TRACE}-{SPAN}-01"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01."), None),
            (format!("cc-{TRACE}-{SPAN}-0"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            // Version 00 says no more.
            (format!("{good}-"), None),
            (format!("{good}-more"), None),
            (format!("{good} "), None),
            (format!(" {good}"), None),
            // Lengths.
            (String::new(), None),
            ("0".into(), None),
            ("00".into(), None),
            ("00-".into(), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("00-{TRACE}-{SPAN}-"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("00-{}-{SPAN}-01", &TRACE[1..]), None),
            (format!("00-{TRACE}0-{SPAN}-01"), None),
            (format!("00-{TRACE}-{}-01", &SPAN[1..]), None),
            (format!("0-{TRACE}-{SPAN}-011"), None),
            // Ids of nobody.
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            // Upper case and what is no digit.
            (good.to_uppercase(), None),
            (format!("00-{TRACE}-{SPAN}-0A"), None),
            (format!("0G-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", TRACE.replace('4', "g")), None),
            (format!("00-{}-{SPAN}-01", TRACE.replacen("4b", "é", 1)), None),
            (good.replace('-', "_"), None),
            (good.replacen('-', "0", 2), None),
        ];
        for (text, sampled) in table {
            let read = text.parse::<Context>();
            assert_eq!(read.as_ref().map(|context| context.sampled).ok(), sampled, "{text:?}");
            if let Ok(context) = read {
                assert_eq!(context.to_string(), format!("00-{TRACE}-{SPAN}-0{}", u8::from(context.sampled)));
            }
        }
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    #[test]
    fn the_state_is_passed_on_as_it_came_or_not_at_all() {
        let many = (0..33).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        let table = [
            ("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", Some("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")),
            ("tenant@system=a b", Some("tenant@system=a b")),
            (" a=1 ,,\tb=2", Some("a=1,b=2")),
            ("", None),
            ("a", None),
            ("a=", None),
            ("A=1", None),
            ("a=1=2", None),
            ("a=1,b", None),
            ("a=é", None),
            (&*format!("a={}", "x".repeat(257)), None),
            (&many, None),
        ];
        let parent = format!("00-{TRACE}-{SPAN}-01");
        for (text, expected) in table {
            let context = Context::of_headers(&headers(&[(TRACEPARENT, &parent), (TRACESTATE, text)]));
            assert_eq!(context.unwrap().state.as_deref(), expected, "{text:?}");
        }
        let two = [(TRACEPARENT, &*parent), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")];
        assert_eq!(Context::of_headers(&headers(&two)).unwrap().state.as_deref(), Some("a=1,b=2"));
    }

    #[test]
    fn headers_that_contradict_each_other_begin_a_new_trace() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let other = format!("00-{TRACE}-{SPAN}-00");
        assert_eq!(Context::of_headers(&headers(&[(TRACEPARENT, &parent), (TRACEPARENT, &other)])), None);
        assert_eq!(Context::of_headers(&headers(&[(TRACESTATE, "a=1")])), None);
        let bad = [(TRACEPARENT, "00-é"), (TRACESTATE, "a=1")];
        assert_eq!(Context::of_headers(&headers(&bad)), None);
    }

    #[test]
    fn what_is_put_takes_the_place_of_what_was_there() {
        let mut map = headers(&[(TRACEPARENT, "junk"), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")]);
        let context = Context::root(|_| true);
        context.put(&mut map);
        assert_eq!(map.get_all(&TRACEPARENT).iter().count(), 1);
        assert_eq!(map.get(&TRACESTATE), None);
        assert_eq!(Context::of_headers(&map), Some(context.clone()));
        let child = context.child();
        assert_eq!((child.trace, child.sampled), (context.trace, context.sampled));
        assert_ne!(child.span, context.span);
    }

    #[test]
    fn shares_are_spread_evenly() {
        let below = (0..2_000).filter(|_| TraceId::new().share() < 0.25).count();
        assert!((380..620).contains(&below), "{below} of 2000");
    }
}
