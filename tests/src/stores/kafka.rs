//! A Kafka of one's own: one node that is broker and controller.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::program::{Program, wrapped};
use super::redis::asked;
use super::{KAFKA_BROKERS, Store, cache, folder};
use crate::{free_ports, pause, repository};

/// The version of `tests/stores/kafka/pom.xml`; the cache keeps one folder a version.
const VERSION: &str = "4.3.1";
/// Time to answer after its start. Java on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(90);
/// Time for a topic to be there.
const TOPIC: Duration = Duration::from_secs(30);
/// Any id will do, each has its own data.
const CLUSTER: &str = "bWxjdGwtdGVzdHMtaGVyZQ";

/// Kafka without a topic: as in production nobody makes one by asking for it. A deploy makes topics, and here the test
/// does: by [`Kafka::create_topic`], or a service with `KAFKA_CREATE_TOPICS=true`.
pub struct Kafka {
    program: Program,
    port: u16,
    folder: TempDir,
}

impl Kafka {
    /// Formats a node and starts it.
    ///
    /// # Errors
    /// No Java, its jars cannot be had, or it does not answer.
    pub fn start() -> Result<Self, String> {
        let jars = prepare()?;
        let folder = folder::new("kafka")?;
        let ports = free_ports(2);
        let (port, controller) = (ports[0], ports[1]);
        let properties = folder.path().join("server.properties");
        std::fs::write(&properties, settings(folder.path(), port, controller))
            .map_err(|error| format!("Kafka: {}: {error}", properties.display()))?;
        let mut format = java(&jars, &["-Xmx128m", "-XX:TieredStopAtLevel=1"]);
        format.extend(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"].map(Into::into));
        format.push(properties.clone().into());
        let mut command = Command::new(&format[0]);
        command.args(&format[1..]);
        cache::run(command, "formatting Kafka's storage", &folder.path().join("format.log"))?;
        let mut line = java(&jars, &["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        line.extend(["kafka.Kafka".into(), properties.into()]);
        let mut program = Program::new("Kafka", line, folder.path(), PATIENCE, move || answers(port))
            .ending_by(Signal::SIGTERM, Signal::SIGKILL);
        program.start()?;
        Ok(Self { program, port, folder })
    }

    /// Returns its address.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes a topic and waits until it is there.
    ///
    /// # Errors
    /// Kafka refuses it, or it is not there in time.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), String> {
        /// Codes of the protocol.
        const EXISTS: i16 = 36;
        let mut body = Vec::new();
        body.extend_from_slice(&1i32.to_be_bytes());
        push_text(&mut body, name);
        body.extend_from_slice(&partitions.to_be_bytes());
        body.extend_from_slice(&1i16.to_be_bytes());
        // No assignments and no settings of its own; ten seconds; not only to try.
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(&10_000i32.to_be_bytes());
        body.push(0);
        let until = Instant::now() + TOPIC;
        // Behind length, correlation id, throttle time, number of topics and the name: the code.
        let code_at = 4 + 4 + 4 + 4 + 2 + name.len();
        loop {
            let answer = asked(self.port, &request(19, 2, &body), code_at + 2);
            let code = answer.as_ref().map(|bytes| i16::from_be_bytes([bytes[code_at], bytes[code_at + 1]]));
            match code {
                Ok(0 | EXISTS) => return Ok(()),
                other if Instant::now() >= until => {
                    return Err(format!("Kafka: the topic {name} is not there after {TOPIC:?}: {other:?}"));
                }
                _ => pause(Duration::from_millis(50)),
            }
        }
    }
}

impl Store for Kafka {
    fn name(&self) -> String {
        format!("Kafka {VERSION}")
    }

    fn programs(&mut self) -> Vec<&mut Program> {
        vec![&mut self.program]
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec![self.folder.path().to_path_buf()]
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![(KAFKA_BROKERS, self.brokers()), ("KAFKA_BROKERS", self.brokers())]
    }
}

/// Fetches the jars where they are not in the cache, and returns their folder.
pub(crate) fn prepare() -> Result<PathBuf, String> {
    cache::cached(
        &format!("kafka-{VERSION}"),
        &format!("fetching Kafka {VERSION} from Maven, once (44 MB)"),
        |folder| {
            let mut command = Command::new("mvn");
            command.args(["-B", "-q", "-f"]).arg(repository().join("tests/stores/kafka/pom.xml"));
            command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
            command.arg(format!("-DoutputDirectory={}", folder.display()));
            cache::run(command, "fetching Kafka", &folder.join("maven.log"))?;
            let jar = format!("kafka_2.13-{VERSION}.jar");
            if folder.join(&jar).is_file() { Ok(()) } else { Err(format!("fetching Kafka: no {jar} came")) }
        },
    )
}

fn java(jars: &Path, options: &[&str]) -> Vec<std::ffi::OsString> {
    let mut line = wrapped(Path::new("java"), false, None);
    line.extend(options.iter().map(Into::into));
    line.extend(["-cp".into(), jars.join("*").into()]);
    line
}

fn settings(folder: &Path, port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
",
        folder.join("data").display()
    )
}

/// A question about the brokers alone: there is one, once it serves.
fn answers(port: u16) -> Result<(), String> {
    // No topics; behind length and correlation id: the number of brokers.
    let answer = asked(port, &request(3, 1, &0i32.to_be_bytes()), 12)?;
    let brokers = i32::from_be_bytes([answer[8], answer[9], answer[10], answer[11]]);
    if brokers > 0 { Ok(()) } else { Err(format!("127.0.0.1:{port}: no broker is there yet")) }
}

/// Returns a request of the Kafka protocol with a header of version 1.
fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend_from_slice(&key.to_be_bytes());
    message.extend_from_slice(&version.to_be_bytes());
    message.extend_from_slice(&1i32.to_be_bytes());
    push_text(&mut message, "stores");
    message.extend_from_slice(body);
    [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&i16::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}
