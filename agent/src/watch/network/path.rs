//! The way out: looked at whenever the kernel says that something changed, and every so often all the same.
//!
//! Which interfaces had a default route is remembered in the runtime directory, so that an agent that was restarted meanwhile still knows that
//! there was one in this boot, and a node that never had one is left in peace.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use tokio::time::sleep;
use tracing::{debug, warn};

use super::events::Events;
use super::{Pace, Sources, routes};
use crate::signal::{DefaultRoute, Link, LinkState, NetworkSignal, PathSignal};

/// The interfaces that had a default route in this boot, one a line.
const MEMORY: &str = "default-route";
/// A node whose routes change all the time (one for each pod) is looked at no more often than this.
const LEAST: Duration = Duration::from_millis(250);
/// `IFF_UP` of `linux/if.h`.
const IFF_UP: u32 = 0x1;

pub(super) async fn follow(sources: Sources, runtime_dir: PathBuf, pace: &Pace) {
    let mut memory = Memory::read(&runtime_dir);
    let mut events = open();
    let mut told_unreadable = false;
    loop {
        match look(&sources, &mut memory) {
            Ok(seen) => {
                told_unreadable = false;
                pace.tell(NetworkSignal::Path(seen)).await;
            }
            Err(error) if !told_unreadable => {
                warn!(%error, "routes cannot be read; the way out is not seen");
                told_unreadable = true;
            }
            Err(_) => {}
        }
        sleep(LEAST).await;
        let Some(alarm) = &events else {
            pace.pause().await;
            events = open();
            continue;
        };
        let lost = tokio::select! {
            changed = alarm.changed() => changed.err(),
            () = pace.pause() => None,
        };
        if let Some(error) = lost {
            warn!(%error, "the kernel's events of the network are lost; they are asked for anew");
            events = open();
        }
    }
}

/// Without events there is still the look every so often.
fn open() -> Option<Events> {
    Events::open()
        .inspect_err(|error| warn!(%error, "the kernel tells no events of the network; it is only looked at now and then"))
        .ok()
}

fn look(sources: &Sources, memory: &mut Memory) -> io::Result<PathSignal> {
    let routes = routes::read(&sources.proc_net)?;
    memory.saw(&routes);
    let links = memory.interfaces.iter().map(|name| Link {
        name: name.clone(),
        state: link(&sources.sys_net.join(name)),
    });
    Ok(PathSignal {
        had_route: !memory.interfaces.is_empty(),
        links: links.collect(),
        routes,
    })
}

/// How the interface is that the kernel tells of in `dir`.
fn link(dir: &Path) -> LinkState {
    let flags = match fs::read_to_string(dir.join("flags")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return LinkState::Gone,
        Err(_) => return LinkState::Unknown,
    };
    let Ok(flags) = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16) else {
        return LinkState::Unknown;
    };
    if flags & IFF_UP == 0 {
        return LinkState::Down;
    }
    match fs::read_to_string(dir.join("carrier")).as_deref().map(str::trim) {
        Ok("1") => LinkState::Carrier,
        Ok("0") => LinkState::NoCarrier,
        _ => LinkState::Unknown,
    }
}

/// The interfaces that have, or last had, a default route in this boot.
struct Memory {
    file: PathBuf,
    interfaces: Vec<String>,
}

impl Memory {
    fn read(runtime_dir: &Path) -> Self {
        let file = runtime_dir.join(MEMORY);
        let interfaces = fs::read_to_string(&file).unwrap_or_default();
        Self {
            file,
            interfaces: interfaces.lines().map(str::to_owned).collect(),
        }
    }

    fn saw(&mut self, routes: &[DefaultRoute]) {
        let mut interfaces: Vec<_> = routes.iter().map(|route| route.interface.clone()).collect();
        interfaces.sort();
        interfaces.dedup();
        if interfaces.is_empty() || interfaces == self.interfaces {
            return;
        }
        self.interfaces = interfaces;
        // A few bytes on a tmpfs: a torn one costs at worst the memory of the interface's name.
        if let Err(error) = fs::write(&self.file, self.interfaces.join("\n")) {
            debug!(%error, file = %self.file.display(), "a restarted agent will not know of the default route");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
    const ROUTE: &str = "eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n";

    fn seen(root: &Path, routes: &str) -> PathSignal {
        fs::write(root.join("route"), format!("{HEAD}{routes}")).unwrap();
        let sources = Sources {
            proc_net: root.into(),
            sys_net: root.into(),
        };
        // As an agent does that has just begun.
        look(&sources, &mut Memory::read(root)).unwrap()
    }

    fn set(root: &Path, flags: &str, carrier: &str) {
        fs::create_dir_all(root.join("eth0")).unwrap();
        fs::write(root.join("eth0/flags"), flags).unwrap();
        fs::write(root.join("eth0/carrier"), carrier).unwrap();
    }

    #[test]
    fn a_route_that_was_there_is_remembered_in_this_boot_with_its_interface() {
        let dir = tempfile::tempdir().unwrap();
        let never = seen(dir.path(), "");
        assert_eq!(never, PathSignal::default());
        set(dir.path(), "0x1003\n", "1\n");
        let there = seen(dir.path(), ROUTE);
        assert!(there.had_route);
        assert_eq!(there.links[0].state, LinkState::Carrier);
        set(dir.path(), "0x1002\n", "");
        let lost = seen(dir.path(), "");
        assert!(lost.routes.is_empty() && lost.had_route);
        assert_eq!(lost.links.len(), 1);
        assert_eq!(lost.links[0].state, LinkState::Down);
    }

    #[test]
    fn links_are_told_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let state = || link(&dir.path().join("eth0"));
        assert_eq!(state(), LinkState::Gone);
        for (flags, carrier, expected) in [
            ("0x1003\n", "1\n", LinkState::Carrier),
            ("0x1003\n", "0\n", LinkState::NoCarrier),
            ("0x1002\n", "0\n", LinkState::Down),
            ("0x1003\n", "", LinkState::Unknown),
            ("", "1\n", LinkState::Unknown),
        ] {
            set(dir.path(), flags, carrier);
            assert_eq!(state(), expected, "{flags:?} {carrier:?}");
        }
    }
}
