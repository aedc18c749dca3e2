//! Questions to servers that do not speak HTTP: whether they would serve, asked without a password.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Who asks, for the servers' own logs and lists of users. The user of Redis that may say PING and nothing else.
pub(crate) const PROBE_USER: &str = "mlctl-probe";
/// What is read of an answer.
const ANSWER_BYTES: usize = 2 << 10;

/// Begins to log in to PostgreSQL and goes no further: it asks for a password once it serves, and says what it waits
/// for until then.
pub(super) async fn ask_postgresql(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&startup(PROBE_USER)).await?;
    let mut answer = [0; ANSWER_BYTES];
    let length = stream.read(&mut answer).await?;
    judge_postgresql(&answer[..length])
}

/// Says PING to Redis.
pub(super) async fn ask_redis(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(format!("AUTH {PROBE_USER} none\r\nPING\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // One line to each.
    while answer.iter().filter(|byte| **byte == b'\n').count() < 2 && answer.len() < ANSWER_BYTES {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    judge_redis(&String::from_utf8_lossy(&answer))
}

/// The first message of the protocol, version 3.0.
fn startup(user: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for word in ["user", user, "database", "postgres", "application_name", user] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &body].concat()
}

fn judge_postgresql(answer: &[u8]) -> io::Result<()> {
    match answer {
        // It asks who we are.
        [b'R', ..] => Ok(()),
        // A code, `57P03` while it starts, and a sentence; each field a letter and a text that a zero ends.
        [b'E', _, _, _, _, fields @ ..] => {
            let fields: Vec<&[u8]> = fields.split(|byte| *byte == 0).collect();
            let text = fields.iter().find_map(|field| field.strip_prefix(b"M"));
            Err(io::Error::other(
                text.map_or_else(|| "it refuses".into(), |text| String::from_utf8_lossy(text).into_owned()),
            ))
        }
        [] => Err(io::Error::other("it closes the connection without an answer")),
        _ => Err(io::Error::other("its answer is not PostgreSQL's")),
    }
}

fn judge_redis(answer: &str) -> io::Result<()> {
    let mut lines = answer.lines();
    match (lines.next(), lines.next()) {
        (Some("+OK"), Some("+PONG")) => Ok(()),
        (Some("+OK"), Some(other)) | (Some(other), _) => {
            let shown: String =
                other.trim_start_matches('-').chars().filter(|c| !c.is_control()).take(160).collect();
            Err(io::Error::other(shown))
        }
        (None, _) => Err(io::Error::other("it closes the connection without an answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgresql_serves_once_it_asks_for_a_password() {
        let refusal = b"E\0\0\0\x40SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        let judged = |answer: &[u8]| judge_postgresql(answer).map_err(|error| error.to_string());
        assert_eq!(judged(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"), Ok(()));
        assert_eq!(judged(refusal), Err("the database system is starting up".to_owned()));
        assert_eq!(judged(b"HTTP/1.1 400"), Err("its answer is not PostgreSQL's".to_owned()));
        assert!(judged(b"").is_err());
    }

    #[test]
    fn the_startup_message_tells_its_length() {
        let message = startup("me");
        assert_eq!(
            usize::try_from(u32::from_be_bytes(message[..4].try_into().unwrap())).unwrap(),
            message.len()
        );
        assert!(message.ends_with(b"application_name\0me\0\0"));
    }

    #[test]
    fn redis_serves_once_it_answers_the_ping() {
        let judged = |answer: &str| judge_redis(answer).map_err(|error| error.to_string());
        assert_eq!(judged("+OK\r\n+PONG\r\n"), Ok(()));
        assert_eq!(
            judged("+OK\r\n-LOADING Redis is loading the dataset in memory\r\n"),
            Err("LOADING Redis is loading the dataset in memory".to_owned())
        );
        assert!(judged("-ERR unknown\r\n+PONG\r\n").is_err());
        assert!(judged("").is_err());
    }
}
