//! Logs: JSON lines on stdout, one object per event, the request id from the span around it.

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging at `level` for the rest of the process; a second call changes nothing (tests start many services).
pub fn init(level: &str) {
    if subscriber(level, std::io::stdout).try_init().is_err() {
        tracing::debug!("logging was started before");
    }
}

/// What turns events into lines; tests give it a writer of their own.
pub(crate) fn subscriber<W>(level: &str, writer: W) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // The HTTP stack's own debug lines name every header, and a header may be a secret.
    let filter = EnvFilter::try_new(format!("{level},hyper=info,hyper_util=info,h2=info,rustls=info"))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .finish()
}

/// The levels that `LOG_LEVEL` accepts.
pub const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
