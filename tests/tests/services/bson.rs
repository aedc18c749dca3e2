//! As much of MongoDB's protocol as it takes to put a document in and read it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Time for one answer.
const LIMIT: Duration = Duration::from_secs(3);

/// A document under construction.
#[derive(Default)]
pub(crate) struct Document(Vec<u8>);

impl Document {
    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        let length = u32::try_from(value.len() + 1).unwrap();
        self.field(2, name, &[&length.to_le_bytes()[..], value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn document(self, name: &str, value: Self) -> Self {
        self.field(3, name, &value.bytes())
    }

    /// A list of one document.
    pub(crate) fn list_of(self, name: &str, value: Self) -> Self {
        self.field(4, name, &Self::default().document("0", value).bytes())
    }

    fn field(mut self, kind: u8, name: &str, value: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self.0.extend_from_slice(value);
        self
    }

    fn bytes(self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() + 5).unwrap();
        [&length.to_le_bytes()[..], &self.0, &[0]].concat()
    }
}

/// Sends a command and returns the bytes of the document that answers it. Whether it went well is in there.
pub(crate) fn command(url: &str, command: Document) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("{url}: {error}");
    let address = url.strip_prefix("mongodb://").unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).map_err(told)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(told)?;
    let document = command.text("$db", "tests").bytes();
    let mut message = Vec::new();
    // Length, request id, the request it answers, OP_MSG, flags; a section of one document.
    for number in [u32::try_from(document.len() + 21).unwrap(), 1, 0, 2013, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&document);
    stream.write_all(&message).map_err(told)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(told)?;
    let mut answer = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap() - 4];
    stream.read_exact(&mut answer).map_err(told)?;
    Ok(answer.split_off(17))
}
