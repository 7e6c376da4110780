//! The last lines that a static pod wrote, as the kubelet keeps them: `/var/log/pods/NAMESPACE_POD-NODE_UID/CONTAINER/N.log`, each line
//! as the container runtime writes it (<https://kubernetes.io/docs/concepts/cluster-administration/logging/>).
//!
//! A pod that ends over and over leaves its last words in the file of its last container, so the file that was written to last is read.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use crate::watch::static_pods::manifest::Manifest;

/// So many lines are told.
const LINES: usize = 5;
/// Of each so much, characters.
const LONGEST: usize = 300;
/// So much of the file's end is read, bytes.
const TAIL: u64 = 16 << 10;

/// A line as docker writes it.
#[derive(Debug, Deserialize)]
struct Json {
    log: String,
}

/// The last lines, the oldest first; none where nothing is kept. Blocks.
pub(crate) fn last_lines(logs: &Path, manifest: &Manifest) -> Vec<String> {
    newest(logs, manifest)
        .and_then(|file| tail(&file).ok())
        .map(|text| lines(&text))
        .unwrap_or_default()
}

fn children(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

/// The file that was written to last and has something in it.
fn newest(logs: &Path, manifest: &Manifest) -> Option<PathBuf> {
    let pod = format!("{}_{}-", manifest.namespace, manifest.name);
    let of_pod = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&pod))
    };
    let files = children(logs)
        .into_iter()
        .filter(of_pod)
        .flat_map(|dir| children(&dir))
        .flat_map(|container| children(&container));
    let dated = files.filter_map(|file| {
        let about = fs::metadata(&file).ok().filter(|about| about.len() > 0)?;
        Some((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), file))
    });
    dated.max().map(|(_, file)| file)
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What was said in the last lines of a log. Pure.
pub(crate) fn lines(text: &str) -> Vec<String> {
    let mut last: Vec<String> = text
        .lines()
        .rev()
        .map(said)
        .filter(|line| !line.is_empty())
        .take(LINES)
        .collect();
    last.reverse();
    last
}

/// A line without what the runtime put before it, and without what could forge another line.
fn said(line: &str) -> String {
    let text = if line.starts_with('{') {
        serde_json::from_str(line).map_or_else(|_| line.to_owned(), |json: Json| json.log)
    } else {
        let mut parts = line.splitn(4, ' ');
        let head = (parts.next(), parts.next(), parts.next(), parts.next());
        match head {
            (Some(_), Some("stdout" | "stderr"), Some("F" | "P"), Some(text)) => text.to_owned(),
            _ => line.to_owned(),
        }
    };
    let clean = text.trim().chars().filter(|c| !c.is_control());
    clean.take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_told_as_either_runtime_writes_them() {
        let text = "2026-01-02T03:04:05.6Z stderr F one\n\
                    {\"log\":\"two\\n\",\"stream\":\"stderr\",\"time\":\"t\"}\n\
                    \n\
                    2026-01-02T03:04:05.6Z stdout P three \u{1b}[31mred\n\
                    plain words of a program\n";
        assert_eq!(
            lines(text),
            ["one", "two", "three [31mred", "plain words of a program"]
        );
        let many: Vec<_> = (0..20).map(|line| line.to_string()).collect();
        assert_eq!(lines(&many.join("\n")), ["15", "16", "17", "18", "19"]);
    }

    #[test]
    fn of_the_files_of_a_pod_the_one_that_was_written_to_last_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = "kind: Pod\nmetadata: {name: kube-apiserver, namespace: kube-system}\nspec: {containers: [{name: c}]}";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(last_lines(dir.path(), &manifest), Vec::<String>::new());
        let write = |pod: &str, file: &str, text: &str| {
            let dir = dir.path().join(pod).join("c");
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(file), text).unwrap();
        };
        write("kube-system_kube-apiserver-m1_a1b2", "3.log", "t stderr F old\n");
        let old = File::options()
            .write(true)
            .open(dir.path().join("kube-system_kube-apiserver-m1_a1b2/c/3.log"))
            .unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        write(
            "kube-system_kube-apiserver-m1_a1b2",
            "4.log",
            "t stderr F its last words\n",
        );
        write("kube-system_kube-apiserver-m1_a1b2", "5.log", "");
        write(
            "kube-system_kube-apiserverx-m1_a1b2",
            "4.log",
            "t stderr F another's\n",
        );
        assert_eq!(last_lines(dir.path(), &manifest), ["its last words"]);
    }
}
