//! Files that people write, read with a bound: a device or a disk image named by mistake must not fill the memory.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Returns the bytes of a file; of one that is larger than `most`, one byte more than that, for its reader to refuse.
///
/// # Errors
/// A file that cannot be read.
pub fn read(path: &Path, most: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_tells_that_it_is_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (length, expected) in [(0, 0), (10, 10), (11, 11), (5_000, 11)] {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(read(&path, 10).unwrap().len(), expected);
        }
        assert_eq!(read(Path::new("/dev/zero"), 10).unwrap().len(), 11);
    }
}
