//! A log of numbered records, and the check that its tail is whole and in order.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, bail, ensure};

/// Bytes.
pub const MIB: u64 = 1 << 20;
/// A decimal sequence number, padded, and a newline: divides every block size, so cuts fall between records.
pub const RECORD: usize = 256;
const DIGITS: usize = 12;
const PADDING: &[u8] = &[b' '; RECORD - DIGITS - 1];

/// Records, a chunk at a time.
#[derive(Debug)]
pub struct Records {
    chunk: Vec<u8>,
    /// Of the last record of the chunk.
    number: [u8; DIGITS],
}

impl Records {
    /// From number 0 on, so many bytes at once.
    ///
    /// # Panics
    /// `bytes` is no multiple of [`RECORD`], or more than memory can hold.
    pub fn new(bytes: u64) -> Self {
        let bytes = usize::try_from(bytes).expect("it fits in memory");
        assert!(bytes.is_multiple_of(RECORD), "whole records");
        Self {
            chunk: vec![b' '; bytes],
            number: [b' '; DIGITS],
        }
    }

    /// The next chunk. Digits are counted up in place: formatting would cost more than writing.
    pub fn next_chunk(&mut self) -> &[u8] {
        for record in self.chunk.chunks_exact_mut(RECORD) {
            count_up(&mut self.number);
            record[RECORD - 1] = b'\n';
            record[RECORD - DIGITS - 1..RECORD - 1].copy_from_slice(&self.number);
        }
        &self.chunk
    }
}

/// The next number, in decimal digits after spaces; the first is 0.
fn count_up(number: &mut [u8; DIGITS]) {
    if number[DIGITS - 1] == b' ' {
        number[DIGITS - 1] = b'0';
        return;
    }
    for digit in number.iter_mut().rev() {
        match *digit {
            b'9' => *digit = b'0',
            b' ' => {
                *digit = b'1';
                return;
            }
            _ => {
                *digit += 1;
                return;
            }
        }
    }
}

/// Every record of `bytes` is whole and in order; the numbers of the first and the last.
///
/// # Errors
/// Says which record is torn, or out of order.
pub fn check(bytes: &[u8]) -> anyhow::Result<(u64, u64)> {
    let mut range: Option<(u64, u64)> = None;
    for (place, record) in bytes.chunks(RECORD).enumerate() {
        ensure!(record.len() == RECORD, "record {place} of the tail is cut short");
        let (body, end) = record.split_at(RECORD - 1);
        let (padding, digits) = body.split_at(RECORD - DIGITS - 1);
        ensure!(
            end == b"\n" && padding == PADDING,
            "record {place} of the tail is torn"
        );
        let number: u64 = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.trim_ascii_start().parse().ok())
            .with_context(|| format!("record {place} of the tail has no number"))?;
        range = match range {
            None => Some((number, number)),
            Some((first, last)) if number == last + 1 => Some((first, number)),
            Some((_, last)) => bail!("record {number} comes after {last}"),
        };
    }
    range.context("the tail is empty")
}

/// Reads so many bytes at the end of a log that may grow meanwhile, checks them, and returns the last record's number.
///
/// # Errors
/// The tail is shorter, or not whole.
pub fn check_tail(log: &File, bytes: u64) -> anyhow::Result<u64> {
    let end = log.metadata()?.len() / RECORD as u64 * RECORD as u64;
    let start = end
        .checked_sub(bytes)
        .context("the log is shorter than its tail")?;
    let mut tail = vec![0; usize::try_from(bytes)?];
    log.read_exact_at(&mut tail, start)
        .context("read the log's tail")?;
    Ok(check(&tail)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_whole_or_it_is_said_where_it_is_not() {
        let mut records = Records::new(4 * RECORD as u64);
        let chunks: Vec<_> = (0..30).map(|_| records.next_chunk().to_vec()).collect();
        assert_eq!(check(&chunks.concat()).unwrap(), (0, 119));
        let mut tail = chunks[24..26].concat();
        assert_eq!(check(&tail).unwrap(), (96, 103));
        tail[RECORD] = 0;
        assert!(
            check(&tail)
                .unwrap_err()
                .to_string()
                .contains("record 1 of the tail is torn")
        );
        let gap = [&chunks[1][..], &chunks[3]].concat();
        assert!(
            check(&gap)
                .unwrap_err()
                .to_string()
                .contains("record 12 comes after 7")
        );
    }
}
