//! Redraws a frame in place on a terminal.

use std::io::{self, Write};

use rustix::termios::tcgetwinsize;

use super::Output;
use super::table::Line;

/// What is assumed of a terminal that does not say how large it is.
const HEIGHT: usize = 24;

/// The frame that stands on the terminal now.
#[derive(Debug, Default)]
pub(crate) struct Live {
    drawn: usize,
}

impl Live {
    /// Lines that a frame may have: the cursor stands below it.
    pub(crate) fn height() -> usize {
        let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_row > 1);
        size.map_or(HEIGHT, |size| usize::from(size.ws_row)) - 1
    }

    /// Replaces the frame. Lines wider than the terminal are cut by it: folded ones could not be found again.
    pub(crate) fn draw(&mut self, output: &mut Output, frame: &[Line]) -> io::Result<()> {
        let mut text = String::from("\x1b[?7l");
        if self.drawn > 0 {
            text += "\x1b[";
            text += &self.drawn.to_string();
            text += "A";
        }
        text += "\r\x1b[J";
        for line in frame {
            text += &line.paint(output.colour);
            text += "\n";
        }
        text += "\x1b[?7h";
        self.drawn = frame.len();
        output.out.write_all(text.as_bytes())?;
        output.out.flush()
    }

    /// Leaves the frame as it stands; what follows is written below.
    pub(crate) fn leave(&mut self) {
        self.drawn = 0;
    }
}
