//! Small files that the kernel makes up when they are read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The kernel says that such a file is empty, and whoever believes it reads it in bits of 32 bytes and more. Those that are looked at all the
/// time fit in here, bytes.
const ROOM: usize = 4096;

/// All of it.
///
/// # Errors
/// It cannot be read, or is no UTF-8.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::with_capacity(ROOM);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_whatever_its_size() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, ROOM - 1, ROOM, ROOM + 1, 10 * ROOM] {
            let (path, text) = (dir.path().join("file"), "x".repeat(size));
            std::fs::write(&path, &text).unwrap();
            assert_eq!(read(&path).unwrap(), text);
        }
        assert!(
            read(Path::new("/proc/meminfo"))
                .unwrap()
                .contains("MemAvailable:")
        );
        assert_eq!(
            read(&dir.path().join("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
