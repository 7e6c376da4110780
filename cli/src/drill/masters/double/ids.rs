//! Ids of members and clusters, as etcd makes them (server/etcdserver/api/membership, member.go and cluster.go of etcd 3.5): the same flags give
//! the same ids as those of a real etcd.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

fn first_eight(of: &[u8]) -> u64 {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, of);
    let bytes = hash.as_ref().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(bytes)
}

/// A member's. `token` is the cluster's for those that it begins with, and else empty; `added_at_unix` is when one was added later.
pub(super) fn member(peer_urls: &[String], token: &str, added_at_unix: Option<u64>) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let at = added_at_unix.map(|at| at.to_string()).unwrap_or_default();
    first_eight(format!("{}{token}{at}", urls.concat()).as_bytes())
}

/// The cluster's that begins with these members.
pub(super) fn cluster(members: &[u64]) -> u64 {
    let mut members = members.to_vec();
    members.sort_unstable();
    let bytes: Vec<u8> = members.into_iter().flat_map(u64::to_be_bytes).collect();
    first_eight(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As etcd's own tests have it (`TestMemberTime`). That of a cluster is compared with real ones
    /// in `cli/tests/etcd_double`.
    #[test]
    fn ids_are_those_of_etcd() {
        let url = |url: &str| vec![url.to_owned()];
        assert_eq!(
            member(&url("http://10.0.0.8:2379"), "", None),
            14_544_069_596_553_697_298
        );
        assert_eq!(
            member(&url("http://10.0.0.1:2379"), "", Some(472_662_245)),
            2_448_790_162_483_548_276
        );
        let two = [
            "http://10.0.0.2:2379".to_owned(),
            "http://10.0.0.1:2379".to_owned(),
        ];
        assert_eq!(
            member(&two, "", None),
            member(&[two[1].clone(), two[0].clone()], "", None)
        );
    }
}
