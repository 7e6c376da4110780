//! Names a machine by its `/etc/machine-id` without giving that away: machine-id(5) asks that it is not shown to others.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use ring::digest::{Context, SHA256};

/// Where systemd keeps it.
pub const MACHINE_ID: &str = "/etc/machine-id";

/// Told apart from what others make of the same id.
const PURPOSE: &[u8] = b"blackstart machine v1\n";
/// Bytes of the digest that are told: no two machines of a fleet have the same.
const TOLD: usize = 16;

/// The name of the machine whose id stands in `file`: 32 hexadecimal digits.
///
/// # Errors
/// The file cannot be read, or has no id in it (as before a machine's first boot).
pub fn name(file: &Path) -> io::Result<String> {
    let text = fs::read_to_string(file)?;
    let id = text.trim();
    if id.len() < 32 || !id.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "there is no machine id in it",
        ));
    }
    let mut digest = Context::new(&SHA256);
    digest.update(PURPOSE);
    digest.update(id.to_ascii_lowercase().as_bytes());
    Ok(hex(&digest.finish().as_ref()[..TOLD]))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_name_which_is_not_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("machine-id");
        let id = "0123456789abcdef0123456789abcdef";
        fs::write(&file, format!("{id}\n")).unwrap();
        let told = name(&file).unwrap();
        assert_eq!((told.len(), told.contains(&id[..8])), (32, false));
        assert_eq!(name(&file).unwrap(), told);
        fs::write(&file, "fedcba9876543210fedcba9876543210").unwrap();
        assert_ne!(name(&file).unwrap(), told);
        for none in ["", "uninitialized\n", "0123"] {
            fs::write(&file, none).unwrap();
            assert!(name(&file).is_err(), "{none:?}");
        }
    }
}
