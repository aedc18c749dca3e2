//! One HTTP/1.1 connection driven by hand: tests of drains and timeouts must see the connection, not a pool.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// No answer of a test takes longer; a test that waits for one fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub struct Wire {
    stream: BufReader<TcpStream>,
}

/// An answer as it came over the wire.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status of the answer.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body of the answer.
    pub body: String,
}

impl Reply {
    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// True when the server will close the connection after this answer.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Wire {
    /// Opens a connection.
    ///
    /// # Errors
    /// The system's answer.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(TcpStream::connect(address).await?) })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The system's answer.
    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes()).await
    }

    /// Sends a request without a body and reads the answer.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<Reply> {
        self.request("GET", path, headers, "").await
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Reply> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.send(&format!("{text}\r\n{body}")).await?;
        self.reply().await
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends first, `TimedOut` when nothing comes.
    pub async fn reply(&mut self) -> io::Result<Reply> {
        tokio::time::timeout(PATIENCE, self.read_reply()).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn read_reply(&mut self) -> io::Result<Reply> {
        let status_line = self.line().await?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {status_line}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| io::Error::other(format!("no header: {line}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply { status, headers, body: String::new() };
        let mut bytes = Vec::new();
        if let Some(length) = reply.header("content-length") {
            bytes.resize(length.parse().map_err(io::Error::other)?, 0);
            self.stream.read_exact(&mut bytes).await?;
        } else if reply.header("transfer-encoding") == Some("chunked") {
            self.chunks(&mut bytes).await?;
        }
        reply.body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(reply)
    }

    async fn chunks(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).map_err(io::Error::other)?;
            let start = bytes.len();
            bytes.resize(start + size, 0);
            self.stream.read_exact(&mut bytes[start..]).await?;
            self.line().await?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Waits until the server closes the connection; true when it did so without sending anything more.
    pub async fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await {
            Ok(Ok(_)) => rest.is_empty(),
            // Reset: closed as well, only less politely.
            Ok(Err(_)) => true,
            Err(_) => false,
        }
    }
}
