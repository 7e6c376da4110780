//! Is there a network configuration that libcni would take: without one, no pod gets an address.
//!
//! The rules are libcni's and the runtimes': of the files `*.conf`, `*.conflist` and `*.json` those are taken that parse; a list needs a name
//! and plugins, each with a type, a single configuration needs a type. One that can be used is enough. After a power loss the file is often
//! there and empty.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tracing::debug;

use super::Pace;
use crate::signal::{CniFound, CniSignal, NetworkSignal};

/// More than any configuration has.
const LONGEST: u64 = 1 << 20;

pub(super) async fn follow(dir: PathBuf, pace: &Pace) {
    loop {
        let looked_at = dir.clone();
        match tokio::task::spawn_blocking(move || look(&looked_at)).await {
            Ok(Ok(found)) => {
                let dir = dir.clone();
                pace.tell(NetworkSignal::Cni(CniSignal { dir, found })).await;
            }
            Ok(Err(error)) => {
                debug!(dir = %dir.display(), %error, "the CNI configuration cannot be looked at");
            }
            Err(error) => debug!(%error, "the look at the CNI configuration was broken off"),
        }
        pace.pause().await;
    }
}

fn look(dir: &Path) -> io::Result<CniFound> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(CniFound::NoDirectory),
        read => read?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if matches!(kind, Some("conf" | "conflist" | "json")) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    let mut broken = None;
    for file in files {
        match read(&file) {
            Ok(()) => return Ok(CniFound::Usable),
            Err(why) if broken.is_none() => {
                let file = file.file_name().unwrap_or_default().display().to_string();
                broken = Some(CniFound::Broken { file, why });
            }
            Err(_) => {}
        }
    }
    Ok(broken.unwrap_or(CniFound::Empty))
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    name: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

fn read(file: &Path) -> Result<(), String> {
    let mut text = Vec::new();
    File::open(file)
        .and_then(|file| file.take(LONGEST).read_to_end(&mut text))
        .map_err(|error| error.to_string())?;
    let list = file.extension().is_some_and(|kind| kind == "conflist");
    understand(&text, list)
}

/// What libcni would say to a file, which is a list of plugins or one plugin.
pub(crate) fn understand(text: &[u8], list: bool) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if list {
        let list: List = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if list.name.is_empty() {
            return Err("it has no name".to_owned());
        }
        if list.plugins.is_empty() {
            return Err("it lists no plugins".to_owned());
        }
        if list.plugins.iter().any(|plugin| plugin.kind.is_empty()) {
            return Err("a plugin of it has no type".to_owned());
        }
        return Ok(());
    }
    let plugin: Plugin = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if plugin.kind.is_empty() {
        return Err("it has no type".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLANNEL: &str = r#"{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": true}}, {"type": "portmap"}]}"#;

    #[test]
    fn one_configuration_that_can_be_used_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("net.d");
        assert_eq!(look(&net).unwrap(), CniFound::NoDirectory);
        fs::create_dir(&net).unwrap();
        assert_eq!(look(&net).unwrap(), CniFound::Empty);
        fs::write(net.join("10-calico.conflist.bak"), FLANNEL).unwrap();
        assert_eq!(look(&net).unwrap(), CniFound::Empty);
        fs::write(net.join("10-flannel.conflist"), "").unwrap();
        let broken = CniFound::Broken {
            file: "10-flannel.conflist".to_owned(),
            why: "it is empty".to_owned(),
        };
        assert_eq!(look(&net).unwrap(), broken);
        fs::write(net.join("99-bridge.conf"), r#"{"name": "b", "type": "bridge"}"#).unwrap();
        assert_eq!(look(&net).unwrap(), CniFound::Usable);
    }

    #[test]
    fn what_libcni_would_not_take_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text, why) in [
            ("a.conflist", r#"{"name": "a", "plugins": []}"#, "no plugins"),
            ("a.conflist", r#"{"plugins": [{"type": "x"}]}"#, "no name"),
            ("a.conflist", r#"{"name": "a", "plugins": [{}]}"#, "no type"),
            ("a.conf", r#"{"name": "a"}"#, "no type"),
            ("a.json", "\0\0\0\0", "expected value"),
            ("a.conf", r#"{"type": "bridge""#, "EOF"),
        ] {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            let found = look(dir.path()).unwrap();
            fs::remove_file(&file).unwrap();
            assert!(
                matches!(&found, CniFound::Broken { why: said, .. } if said.contains(why)),
                "{text}: {found:?}"
            );
        }
        fs::write(dir.path().join("a.conflist"), FLANNEL).unwrap();
        assert_eq!(look(dir.path()).unwrap(), CniFound::Usable);
    }
}
