//! What producer and consumer share: the settings of the client and its log lines.

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Settings;

/// The settings that every client has.
pub(super) fn config(settings: &Settings, client: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", client)
        // A broker that comes back is found within two seconds.
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "2000")
        .set("socket.connection.setup.timeout.ms", "5000")
        .set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// Log lines of the client, and whether it has any broker.
#[derive(Debug, Default)]
pub(super) struct Connection {
    down: AtomicBool,
}

impl Connection {
    /// True while no broker could be reached.
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// A broker answered.
    pub(super) fn up(&self) {
        self.down.store(false, Ordering::Release);
    }
}

impl ClientContext for Connection {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown)
            && !self.down.swap(true, Ordering::AcqRel)
        {
            tracing::warn!(reason, "no broker of Kafka can be reached");
        } else {
            tracing::debug!(%error, reason, "the client of Kafka reports an error");
        }
    }
}

/// The client repeats itself while a broker is away; that is told once, above.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "kafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "kafka", facility, "{message}"),
        _ => tracing::debug!(target: "kafka", facility, "{message}"),
    }
}
