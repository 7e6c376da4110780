//! What a request asks for, read from its method and path (k8s.io/apiserver/pkg/endpoints/request/requestinfo.go).

use std::collections::BTreeMap;

/// A request as authorization and the handlers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the method in lower case.
    pub(crate) verb: &'static str,
    /// Whether a resource is asked for, and not some other path.
    pub(crate) is_resource: bool,
    /// The API group, empty for the core.
    pub(crate) group: String,
    /// The version in the group.
    pub(crate) version: String,
    /// The plural name of the resource.
    pub(crate) resource: String,
    /// `status`, `eviction` … or empty.
    pub(crate) subresource: String,
    /// The namespace, or empty.
    pub(crate) namespace: String,
    /// The object's name, or empty.
    pub(crate) name: String,
    /// The path without its query.
    pub(crate) path: String,
    /// The query.
    pub(crate) query: BTreeMap<String, String>,
}

impl Asked {
    /// Reads a request line.
    pub(crate) fn parse(method: &str, path: &str, query: &str) -> Self {
        let mut asked = Self {
            path: path.to_owned(),
            query: pairs(query),
            ..Self::default()
        };
        let mut parts = path.split('/').filter(|part| !part.is_empty()).map(decode);
        let root = parts.next().unwrap_or_default();
        if root == "apis" {
            asked.group = parts.next().unwrap_or_default();
        }
        asked.version = parts.next().unwrap_or_default();
        let mut rest: Vec<String> = parts.collect();
        asked.is_resource = matches!(root.as_str(), "api" | "apis") && !rest.is_empty();
        if !asked.is_resource {
            asked.verb = plain_verb(method);
            (asked.group, asked.version) = (String::new(), String::new());
            return asked;
        }
        if rest[0] == "namespaces" && rest.len() > 1 {
            asked.namespace.clone_from(&rest[1]);
            if rest.len() > 2 && !matches!(rest[2].as_str(), "status" | "finalize") {
                rest.drain(..2);
            }
        }
        let mut rest = rest.into_iter();
        asked.resource = rest.next().unwrap_or_default();
        asked.name = rest.next().unwrap_or_default();
        asked.subresource = rest.next().unwrap_or_default();
        let watches = matches!(asked.param("watch"), "true" | "1");
        asked.verb = match (method, asked.name.is_empty()) {
            ("GET", true) if watches => "watch",
            ("GET", true) => "list",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            (_, _) => "get",
        };
        asked
    }

    /// A parameter of the query, or the empty string.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The name that rules with `resourceNames` look at: of the path, or of a selector for one name.
    pub(crate) fn one_name(&self) -> &str {
        let selected = self
            .param("fieldSelector")
            .strip_prefix("metadata.name=")
            .filter(|rest| !rest.contains(','));
        if self.name.is_empty() {
            selected.unwrap_or_default()
        } else {
            &self.name
        }
    }
}

fn plain_verb(method: &str) -> &'static str {
    match method {
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(&value.replace('+', " ")))
        })
        .collect()
}

/// Percent-encoding taken away.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex
            .filter(|_| first == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_the_authorizer_reads_them() {
        for (method, path, query, expected) in [
            ("GET", "/api/v1/nodes", "", "list  v1 nodes   "),
            ("GET", "/api/v1/pods", "watch=true", "watch  v1 pods   "),
            (
                "POST",
                "/api/v1/namespaces/a/pods/p/eviction",
                "",
                "create  v1 pods eviction a p",
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/status",
                "",
                "update  v1 namespaces status a a",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "",
                "deletecollection apps v1 deployments  a ",
            ),
            ("GET", "/apis/apps/v1", "", "get      "),
        ] {
            let asked = Asked::parse(method, path, query);
            let Asked {
                verb,
                group,
                version,
                resource,
                subresource,
                namespace,
                name,
                ..
            } = &asked;
            let shown = format!("{verb} {group} {version} {resource} {subresource} {namespace} {name}");
            assert_eq!(shown, expected, "{method} {path}");
        }
        let asked = Asked::parse(
            "GET",
            "/api/v1/pods",
            "labelSelector=app%3Dweb%2Ctier%20in%20(a)&limit=5",
        );
        assert_eq!(asked.param("labelSelector"), "app=web,tier in (a)");
    }
}
