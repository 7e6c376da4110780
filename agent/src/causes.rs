//! An error with all its causes in one line, for logs and statuses.

use std::error::Error;
use std::fmt::Write;

/// `error: cause: cause of the cause`; a cause that repeats the one before it is left out.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut next = error.source();
    while let Some(cause) = next {
        let this = cause.to_string();
        if this != last {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {this}");
        }
        last = this;
        next = cause.source();
    }
    text
}
