//! The container runtime: a kubelet that cannot reach one does not start.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Finding;
use crate::config::Settings;

const CHECK: &str = "container-runtime";
const ADVICE: &str = "systemctl status containerd docker; journalctl -u containerd -u docker -b -n 100";

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let sockets = &settings.preflight.container_runtimes;
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut dead = None;
    for socket in sockets {
        match knock(socket) {
            Ok(()) => {
                let subject = socket.display().to_string();
                return vec![Finding::ok(CHECK, subject, "somebody listens")];
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => dead = dead.or(Some((socket, error))),
        }
    }
    let (subject, detail) = if let Some((socket, error)) = dead {
        (socket.display().to_string(), format!("nobody listens: {error}"))
    } else {
        let names: Vec<_> = sockets.iter().map(|path| path.display().to_string()).collect();
        (String::new(), format!("there is none of {}", names.join(", ")))
    };
    vec![Finding::blocker(CHECK, subject, detail, ADVICE)]
}

/// Somebody takes connections.
fn knock(socket: &Path) -> io::Result<()> {
    UnixStream::connect(socket).map(drop)
}
