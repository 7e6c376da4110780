//! The kubelet's journal → [`Signal::Pleg`].
//!
//! When the kubelet does not see its containers it says so in its log, each 5 s, and nowhere else on the node: `/healthz` stays 200.
//! The journal is read by `journalctl`, once an interval, the newest entry first: while something is wrong it ends after a few
//! lines. The messages are looked for here and not by its `--grep`, which systemds before 237 and those without PCRE lack.
//!
//! A look reaches back to the beginning of the last one that could be made. What cannot be read is unobservable.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::config::PlegSettings;
use crate::signal::{PlegSignal, Signal};

/// The journal's time stamps are the wall clock's: looks overlap by this.
const OVERLAP: Duration = Duration::from_secs(1);
/// A look reaches back no further, however long none could be made.
const FURTHEST: Duration = Duration::from_mins(10);
/// Longer lines are looked at in pieces of this, bytes.
const LINE: u64 = 16 << 10;
/// So much of a message is told, in characters.
const TOLD: usize = 300;
/// So much of what `journalctl` complains of is read, bytes.
const COMPLAINT: u64 = 4 << 10;

/// Watches until `stop`.
pub async fn watch(
    unit: String,
    settings: PlegSettings,
    signals: mpsc::Sender<Signal>,
    stop: CancellationToken,
) {
    let mut ticks = interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen_until: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let begun = Instant::now();
        let back = seen_until.map_or(settings.interval, |until| begun.duration_since(until));
        let look = timeout(
            settings.deadline,
            look(&settings, &unit, back.min(FURTHEST) + OVERLAP),
        );
        let found = tokio::select! {
            () = stop.cancelled() => return,
            found = look => match found {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => PlegSignal::Unobservable {
                    why: format!("read the journal with {}: {error}", settings.journalctl.display()),
                },
                Err(_) => PlegSignal::Unobservable {
                    why: format!("the journal was not read within {:?}", settings.deadline),
                },
            },
        };
        match &found {
            PlegSignal::Unobservable { why } => debug!(why, "the kubelet's journal cannot be read"),
            PlegSignal::Quiet | PlegSignal::Starting { .. } | PlegSignal::Unhealthy { .. } => {
                seen_until = Some(begun);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            sent = signals.send(Signal::Pleg(found)) => if sent.is_err() { return },
        }
    }
}

/// One look, so far back. The child does not outlive it.
async fn look(settings: &PlegSettings, unit: &str, back: Duration) -> io::Result<PlegSignal> {
    let mut child = Command::new(&settings.journalctl)
        .args(["--quiet", "--no-pager", "--reverse", "--output=cat"])
        .arg(format!("--unit={unit}"))
        .arg(format!("--since=-{}s", back.as_secs().max(1)))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("it has no output"));
    };
    let mut complaint = Vec::new();
    let mut complaints = stderr.take(COMPLAINT);
    // Both at once: one that is not read would stop it.
    let (found, read) = tokio::join!(newest(stdout), async {
        complaints.read_to_end(&mut complaint).await?;
        tokio::io::copy(complaints.get_mut(), &mut tokio::io::sink()).await
    });
    if let Some(found) = found? {
        return Ok(found);
    }
    read?;
    let status = child.wait().await?;
    let complaint = String::from_utf8_lossy(&complaint);
    let complaint = complaint.trim();
    // Without a journal, or without the right to read it, it finds nothing and is content.
    if !status.success() || complaint.contains("No journal files") {
        return Err(io::Error::other(format!("{status}: {complaint}")));
    }
    Ok(PlegSignal::Quiet)
}

/// The first message that matters: the newest.
async fn newest(lines: impl AsyncRead + Unpin) -> io::Result<Option<PlegSignal>> {
    let mut lines = BufReader::new(lines);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut lines).take(LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        if let Some(found) = read(&String::from_utf8_lossy(&line)) {
            return Ok(Some(found));
        }
    }
}

/// What a line of the kubelet's log says. Pure.
///
/// The words are the kubelet's since 1.2 (`kubelet.go`, `runtime.go`, `pleg/generic.go`). A start is "yet to be successful"; before 1.15 the
/// generator was last seen active at the beginning of time, 2562047 hours ago, and the runtime down.
pub(crate) fn read(line: &str) -> Option<PlegSignal> {
    let says = |words: &str| line.contains(words);
    let starting = says("pleg has yet to be successful")
        || says("pleg was last seen active 2562047h")
        || says("container runtime status check may not have completed yet");
    let message = || line.trim().chars().take(TOLD).collect();
    if starting {
        Some(PlegSignal::Starting { message: message() })
    } else if says("PLEG is not healthy") || says("container runtime is down") {
        Some(PlegSignal::Unhealthy { message: message() })
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
