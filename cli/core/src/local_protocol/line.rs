//! One JSON object a line over a socket, and never more of it than was agreed. Both ends read and write with this.

use std::io;

use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// Reads one line of at most `most` bytes; none when the other side is done.
///
/// # Errors
/// `InvalidData` for a line that is longer or no text: what follows on that connection cannot be told apart from its
/// rest. `UnexpectedEof` for a line that is cut off.
pub async fn read(reader: &mut (impl AsyncBufRead + Unpin), most: u64) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = reader.take(most).read_line(&mut line).await?;
    match line.strip_suffix('\n') {
        Some(whole) => Ok(Some(whole.to_owned())),
        None if read == 0 => Ok(None),
        None if read as u64 >= most => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line is longer than {most} bytes")))
        }
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line is cut off")),
    }
}

/// Writes a message down as its line.
///
/// # Errors
/// Never in practice: messages hold only data.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_whole_and_within_bounds_or_refused() {
        let mut two: &[u8] = b"one\ntwo\n";
        assert_eq!(read(&mut two, 8).await.unwrap().as_deref(), Some("one"));
        assert_eq!(read(&mut two, 8).await.unwrap().as_deref(), Some("two"));
        assert_eq!(read(&mut two, 8).await.unwrap(), None);
        for (bytes, kind) in [
            (&b"123456789\n"[..], io::ErrorKind::InvalidData),
            (b"\xff\n", io::ErrorKind::InvalidData),
            (b"1234", io::ErrorKind::UnexpectedEof),
        ] {
            let mut reader = bytes;
            assert_eq!(read(&mut reader, 8).await.unwrap_err().kind(), kind, "{bytes:?}");
        }
    }
}
