//! How many refusals are told: whoever asks without right, again and again, must not push everything else out of the events. Pure.

/// So many are told in a window; those after them are only counted.
const MOST: u32 = 20;
/// Seconds.
const WINDOW: u64 = 60;

/// What was told lately.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    /// When the window began, seconds since the Unix epoch.
    begun: u64,
    told: u32,
    counted: u64,
}

impl Flood {
    /// Whether one more refusal is told at `now`; if so, how many before it were not.
    pub(crate) fn one_more(&mut self, now: u64) -> Option<u64> {
        // A clock that was set back begins anew as well.
        if now < self.begun || now - self.begun >= WINDOW {
            self.begun = now;
            self.told = 0;
        }
        if self.told == MOST {
            self.counted += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_told_in_part_and_counted_whole() {
        let mut flood = Flood::default();
        let told = (0..1000).filter(|_| flood.one_more(100).is_some()).count();
        assert_eq!(told, 20);
        assert_eq!(flood.one_more(159), None);
        assert_eq!(flood.one_more(160), Some(981), "the next minute says how many");
        assert_eq!(flood.one_more(160), Some(0));
        assert_eq!(flood.one_more(10), Some(0), "a clock that was set back");
    }
}
