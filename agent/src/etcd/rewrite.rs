//! A manifest of etcd written anew: with another `--initial-cluster`, or for a member on another host. Pure.
//!
//! Lines are changed where a flag is written, so that all else stays as it was, comments too; and what was written is read again: it says what
//! was meant and nothing else, or it is refused.

use std::net::IpAddr;

use super::pod::{EtcdPod, NoPod, host, variable};
use crate::watch::static_pods::manifest::is_pod_name;

/// A manifest that is given to another node is no larger, bytes: kubeadm's has two thousand.
pub(super) const MOST: usize = 64 << 10;

/// The manifest in which the member joins an existing cluster of these members. Everything else stays as it was written, comments too.
///
/// # Errors
/// Its form is not understood: for people.
pub(crate) fn joining(text: &str, initial_cluster: &str) -> Result<String, String> {
    let before = EtcdPod::parse(text).map_err(|why| match why {
        NoPod::NotEtcd => "it does not run etcd".to_owned(),
        NoPod::Unclear(why) => why,
    })?;
    if initial_cluster.is_empty() || initial_cluster.contains(['"', '\'', '\n', ' ', '#', '\\']) {
        return Err(format!("{initial_cluster:?} is no list of members"));
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let cluster = set(&mut lines, "initial-cluster", initial_cluster);
    if set(&mut lines, "initial-cluster-state", "existing").is_none() {
        let Some(at) = cluster else {
            return Err(unclear("--initial-cluster"));
        };
        let like = lines[at].clone();
        lines.insert(at + 1, like_flag(&like, "initial-cluster-state", "existing")?);
    }
    if cluster.is_none() {
        return Err(unclear("--initial-cluster"));
    }
    let mut after = lines.join("\n");
    if text.ends_with('\n') {
        after.push('\n');
    }
    let expected = EtcdPod {
        initial_cluster: initial_cluster.to_owned(),
        initial_cluster_state: "existing".to_owned(),
        ..before
    };
    match EtcdPod::parse(&after) {
        Ok(read) if read == expected => Ok(after),
        Ok(_) | Err(_) => Err(unclear("--initial-cluster")),
    }
}

fn unclear(flag: &str) -> String {
    format!(
        "{flag} is not on a line of its own in the manifest, so that it cannot be changed safely: change it by hand"
    )
}

/// The manifest of a member of another name on another host. Everything else stays as it was written, comments too.
///
/// # Errors
/// Its form is not understood: for people.
pub(crate) fn moved(text: &str, name: &str, address: &str, initial_cluster: &str) -> Result<String, String> {
    let before = EtcdPod::parse(text).map_err(|why| match why {
        NoPod::NotEtcd => "it does not run etcd".to_owned(),
        NoPod::Unclear(why) => why,
    })?;
    let from = before.peer_urls.first().map(|url| host(url).to_owned());
    let from = from.ok_or("it does not say --initial-advertise-peer-urls")?;
    if !is_pod_name(name) {
        return Err(format!("{name:?} is no name of a member"));
    }
    if address.trim_matches(['[', ']']).parse::<IpAddr>().is_err() {
        return Err(format!("{address:?} is no address"));
    }
    let mut told = before.peer_urls.iter().chain(&before.advertises);
    if let Some(other) = told.find(|url| host(url) != from) {
        return Err(format!(
            "it tells others of {other}, beside {from}: change it by hand"
        ));
    }
    if text.len() > MOST {
        return Err(format!("it is larger than {} KiB", MOST >> 10));
    }
    // A member that forgets its cluster at each start is one by itself.
    if text.contains("force-new-cluster") {
        return Err("it says --force-new-cluster: take that out first, on its own node too".to_owned());
    }
    let mut lines: Vec<String> = text.lines().map(|line| with_host(line, &from, address)).collect();
    set(&mut lines, "name", name).ok_or_else(|| unclear("--name"))?;
    let mut after = lines.join("\n");
    if text.ends_with('\n') {
        after.push('\n');
    }
    let after = joining(&after, initial_cluster)?;
    let there =
        |urls: &[String]| -> Vec<String> { urls.iter().map(|url| with_host(url, &from, address)).collect() };
    let expected = EtcdPod {
        name: name.to_owned(),
        listen: there(&before.listen),
        peer_urls: there(&before.peer_urls),
        advertises: there(&before.advertises),
        listen_peers: there(&before.listen_peers),
        initial_cluster: initial_cluster.to_owned(),
        initial_cluster_state: "existing".to_owned(),
        ..before
    };
    match EtcdPod::parse(&after) {
        Ok(read) if read == expected => Ok(after),
        Ok(_) | Err(_) => Err(unclear("the address of the member")),
    }
}

/// A line with another host in place of this one, wherever it stands for itself.
fn with_host(line: &str, from: &str, to: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let mut after = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(from) {
        let (before, end) = (&rest[..at], &rest[at + from.len()..]);
        let stands = !before.ends_with(is_part) && !end.starts_with(is_part);
        after.push_str(before);
        after.push_str(if stands { to } else { from });
        rest = end;
    }
    after.push_str(rest);
    after
}

/// Sets a flag where it is written; the line, or `None` if it is written nowhere.
fn set(lines: &mut [String], flag: &str, value: &str) -> Option<usize> {
    let with_value = format!("--{flag}=");
    let variable = variable(flag);
    for at in 0..lines.len() {
        let line = &lines[at];
        if let Some(begin) = line.find(&with_value)
            && line[..begin].trim_matches([' ', '-', '"', '\'']).is_empty()
        {
            let quote = line[..begin].chars().last().filter(|c| matches!(c, '"' | '\''));
            let end = quote.map_or(String::new(), String::from);
            lines[at] = format!("{}{with_value}{value}{end}", &line[..begin]);
            return Some(at);
        }
        let is_named = line.trim_start_matches([' ', '-']).trim_end() == format!("name: {variable}");
        if is_named && let Some(next) = lines.get(at + 1) {
            let begin = next.find("value:")?;
            if next[..begin].trim().is_empty() {
                lines[at + 1] = format!("{}value: {value}", &next[..begin]);
                return Some(at);
            }
        }
    }
    None
}

/// The line of another flag, written as this one is.
fn like_flag(line: &str, flag: &str, value: &str) -> Result<String, String> {
    let begin = line.find("--").ok_or_else(|| unclear(flag))?;
    let quote = line[..begin].chars().last().filter(|c| matches!(c, '"' | '\''));
    let end = quote.map_or(String::new(), String::from);
    Ok(format!("{}--{flag}={value}{end}", &line[..begin]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KUBEADM: &str = include_str!("testdata/etcd.yaml");

    #[test]
    fn joining_changes_two_flags_and_nothing_else() {
        let members = "m1=https://10.0.0.11:2380,m2=https://10.0.0.12:2380";
        let after = joining(KUBEADM, members).unwrap();
        let changed: Vec<_> = after
            .lines()
            .filter(|line| !KUBEADM.lines().any(|before| before == *line))
            .collect();
        assert_eq!(
            changed,
            [
                &format!("    - --initial-cluster={members}"),
                "    - --initial-cluster-state=existing"
            ]
        );
        assert_eq!(
            joining(&after, members).as_deref(),
            Ok(after.as_str()),
            "twice is once"
        );
        assert!(joining(KUBEADM, "a\n    - --force-new-cluster").is_err());
        let inline = "metadata: {name: a}\nspec: {containers: [{command: [etcd, --data-dir=/d, '--initial-cluster=a=http://1', '--listen-client-urls=http://1:1']}]}\n";
        assert!(joining(inline, members).unwrap_err().contains("by hand"));
    }

    #[test]
    fn a_member_on_another_host_has_its_name_and_address_there_and_all_else_as_it_was() {
        let members = "m2=https://10.0.0.12:2380,m4=https://10.0.0.14:2380";
        let after = moved(KUBEADM, "m4", "10.0.0.14", members).unwrap();
        assert!(!after.contains("10.0.0.11"), "{after}");
        let (before, pod) = (EtcdPod::parse(KUBEADM).unwrap(), EtcdPod::parse(&after).unwrap());
        assert_eq!((pod.name.as_str(), pod.pod.as_str()), ("m4", "etcd"));
        assert_eq!(
            pod.endpoints(),
            ["https://127.0.0.1:2379", "https://10.0.0.14:2379"]
        );
        assert_eq!(pod.peer_urls, ["https://10.0.0.14:2380"]);
        assert_eq!(pod.listen_peers, pod.peer_urls);
        assert_eq!(
            (pod.initial_cluster.as_str(), pod.initial_cluster_state.as_str()),
            (members, "existing")
        );
        assert_eq!(
            (&pod.data_dir, &pod.tls, &pod.peer_tls),
            (&before.data_dir, &before.tls, &before.peer_tls)
        );
        assert!(pod.peer_tls.is_some());
        for (name, address) in [
            ("M4", "10.0.0.14"),
            ("m4", "nowhere"),
            ("a b", "10.0.0.14"),
            ("m4", "1.1.1.1:1"),
        ] {
            assert!(
                moved(KUBEADM, name, address, members).is_err(),
                "{name} {address}"
            );
        }
    }

    #[test]
    fn a_manifest_that_would_not_do_on_another_host_is_refused() {
        let members = "m4=https://10.0.0.14:2380";
        let two = KUBEADM.replace(
            "--initial-advertise-peer-urls=https://10.0.0.11:2380",
            "--initial-advertise-peer-urls=https://10.0.0.11:2380,https://10.1.0.11:2380",
        );
        assert!(
            moved(&two, "m4", "10.0.0.14", members)
                .unwrap_err()
                .contains("10.1.0.11")
        );
        let outside = KUBEADM.replace(
            "--advertise-client-urls=https://10.0.0.11",
            "--advertise-client-urls=https://192.0.2.1",
        );
        assert!(
            moved(&outside, "m4", "10.0.0.14", members)
                .unwrap_err()
                .contains("192.0.2.1")
        );
        let alone = KUBEADM.replace(
            "    - --name=m1",
            "    - --name=m1\n    - --force-new-cluster=true",
        );
        assert!(
            moved(&alone, "m4", "10.0.0.14", members)
                .unwrap_err()
                .contains("force-new-cluster")
        );
    }

    #[test]
    fn a_host_is_told_from_one_that_begins_or_ends_alike() {
        for (line, expected) in [
            (
                "- --listen=https://10.0.0.1:2379,https://10.0.0.11:2379",
                "- --listen=https://10.0.0.4:2379,https://10.0.0.11:2379",
            ),
            (
                "- --x=http://110.0.0.1:1,http://10.0.0.1",
                "- --x=http://110.0.0.1:1,http://10.0.0.4",
            ),
            ("host: 10.0.0.1", "host: 10.0.0.4"),
        ] {
            assert_eq!(with_host(line, "10.0.0.1", "10.0.0.4"), expected);
        }
    }

    proptest! {
        #[test]
        fn a_manifest_for_another_host_is_made_of_any_or_refused(at in 0..KUBEADM.len(), with in any::<char>()) {
            let at = KUBEADM.floor_char_boundary(at);
            let changed = format!("{}{with}{}", &KUBEADM[..at], &KUBEADM[at..]);
            if let Ok(after) = moved(&changed, "m4", "10.0.0.14", "m4=https://10.0.0.14:2380") {
                let (before, after) = (EtcdPod::parse(&changed).unwrap(), EtcdPod::parse(&after).unwrap());
                prop_assert_eq!(after.name, "m4");
                prop_assert_eq!(before.data_dir, after.data_dir);
            }
        }

        #[test]
        fn a_manifest_cut_or_changed_anywhere_is_read_or_refused(at in 0..KUBEADM.len(), with in any::<char>()) {
            let at = KUBEADM.floor_char_boundary(at);
            let changed = format!("{}{with}{}", &KUBEADM[..at], &KUBEADM[at..]);
            let _read_or_refused = EtcdPod::parse(&KUBEADM[..at]);
            if let Ok(after) = joining(&changed, "m1=https://10.0.0.11:2380") {
                let (before, after) = (EtcdPod::parse(&changed).unwrap(), EtcdPod::parse(&after).unwrap());
                prop_assert_eq!(after.initial_cluster_state, "existing");
                prop_assert_eq!(before.data_dir, after.data_dir);
            }
        }
    }
}
