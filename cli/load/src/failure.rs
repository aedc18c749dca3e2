//! The ways a request fails, told apart so that a person knows where to look.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a request did not get the answer it expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Failure {
    /// Nobody listens.
    Refused,
    /// No connection for another reason.
    Connect,
    /// This machine has no port or descriptor left: the client's fault.
    ClientExhausted,
    /// The connection broke before a whole answer came.
    Reset,
    /// The same on a connection that had served before: the server may have closed it just then, which HTTP/1.1
    /// cannot rule out.
    ResetOnReuse,
    /// No whole answer within the profile's timeout.
    Timeout,
    /// An error status.
    Status(u16),
    /// A status that is no error, but not the one expected.
    UnexpectedStatus,
    /// Fewer bytes than announced.
    ShortBody,
    /// Bytes that are not HTTP/1.1.
    BadResponse,
    /// The request could not be written down: a value does not fit its place.
    InvalidRequest,
    /// It was due, and no connection could take it in time.
    NotSent,
}

impl Failure {
    /// Says whether the client alone may be to blame, so that the server must not be judged by it.
    pub(crate) const fn is_clients(self) -> bool {
        matches!(self, Self::ClientExhausted | Self::InvalidRequest)
    }

    /// Sorts an error of connecting.
    pub(crate) fn of_connect(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Self::ClientExhausted,
            // EMFILE and ENFILE have no kind of their own.
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => Self::ClientExhausted,
            _ => Self::Connect,
        }
    }

    /// Sorts an error of sending, or of reading the head of the answer.
    pub(crate) fn of_exchange(error: &hyper::Error, reused: bool) -> Self {
        if error.is_parse() {
            Self::BadResponse
        } else if reused {
            Self::ResetOnReuse
        } else {
            Self::Reset
        }
    }

    /// Sorts an error of reading the body.
    pub(crate) fn of_body(error: &hyper::Error) -> Self {
        if error.is_parse() {
            return Self::BadResponse;
        }
        let mut source = error.source();
        while let Some(error) = source {
            if let Some(io) = error.downcast_ref::<io::Error>()
                && matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            {
                return Self::Reset;
            }
            source = error.source();
        }
        Self::ShortBody
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::ClientExhausted => "client_exhausted",
            Self::Reset => "reset",
            Self::ResetOnReuse => "reset_on_reuse",
            Self::Timeout => "timeout",
            Self::Status(code) => return write!(f, "status_{code}"),
            Self::UnexpectedStatus => "unexpected_status",
            Self::ShortBody => "short_body",
            Self::BadResponse => "bad_response",
            Self::InvalidRequest => "invalid_request",
            Self::NotSent => "not_sent",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_errors_are_sorted() {
        for (error, wanted) in [
            (io::Error::from(io::ErrorKind::ConnectionRefused), "refused"),
            (io::Error::from(io::ErrorKind::AddrNotAvailable), "client_exhausted"),
            (io::Error::from_raw_os_error(24), "client_exhausted"),
            (io::Error::from(io::ErrorKind::HostUnreachable), "connect"),
        ] {
            assert_eq!(Failure::of_connect(&error).to_string(), wanted);
        }
        assert_eq!(Failure::Status(503).to_string(), "status_503");
    }
}
