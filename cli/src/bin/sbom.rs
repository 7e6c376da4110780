//! Writes what a program of this workspace is made of, as a `CycloneDX` 1.5 document: every crate that is linked into it or runs while it is built, with
//! version, licence, checksum, and who needs it. Tests' crates are not among them. The same source makes the same bytes.
//!
//! ```sh
//! cargo metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu | sbom blackstart-agent Cargo.lock
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

/// As `cargo metadata` writes it; see cargo-metadata(1).
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// Absent for a crate of this workspace.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `dev`, `build`, or absent.
    kind: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(program), Some(lock)) = (arguments.next(), arguments.next()) else {
        bail!("say of which program, and where the lock file is: sbom PROGRAM Cargo.lock");
    };
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .context("read what cargo metadata wrote")?;
    let metadata: Metadata = serde_json::from_str(&text).context("read what cargo metadata wrote")?;
    let lock = fs::read_to_string(&lock).with_context(|| format!("read {lock}"))?;
    let document = document(&metadata, &checksums(&lock), &program)?;
    let mut out = io::stdout();
    serde_json::to_writer_pretty(&mut out, &document)?;
    out.write_all(b"\n").context("write the document")
}

/// Of each (name, version) in a lock file.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        let line = block
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.map(|line| line.trim_end_matches('"').to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|block| {
            let of = (value(block, "name")?, value(block, "version")?);
            Some((of, value(block, "checksum")?))
        })
        .collect()
}

fn url(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package, kind: &str, checksums: &BTreeMap<(String, String), String>) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": url(package),
        "name": package.name,
        "version": package.version,
        "purl": url(package),
    });
    if let Some(license) = &package.license {
        // As crates wrote it before there were expressions.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    let of = (package.name.clone(), package.version.clone());
    if let (Some(_), Some(checksum)) = (&package.source, checksums.get(&of)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn document(
    metadata: &Metadata,
    checksums: &BTreeMap<(String, String), String>,
    program: &str,
) -> anyhow::Result<Value> {
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let needs: BTreeMap<&str, Vec<&str>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| {
            let linked = node.deps.iter().filter(|needed| {
                needed
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind.as_deref() != Some("dev"))
            });
            (
                node.id.as_str(),
                linked.map(|needed| needed.pkg.as_str()).collect(),
            )
        })
        .collect();
    let root = metadata
        .packages
        .iter()
        .find(|package| package.name == program && package.source.is_none());
    let root = root.with_context(|| format!("there is no program {program} in this workspace"))?;
    let mut all = BTreeSet::new();
    let mut next = vec![root.id.as_str()];
    while let Some(id) = next.pop() {
        if all.insert(id) {
            next.extend(needs.get(id).into_iter().flatten());
        }
    }
    let of = |id: &str| {
        packages
            .get(id)
            .copied()
            .context("a crate that is needed is not listed")
    };
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for id in &all {
        let package = of(id)?;
        if package.id != root.id {
            components.push(component(package, "library", checksums));
        }
        let needed = needs.get(id).into_iter().flatten();
        let needed: BTreeSet<_> = needed.map(|id| of(id).map(url)).collect::<Result<_, _>>()?;
        dependencies.push(json!({ "ref": url(package), "dependsOn": needed }));
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(root, "application", checksums) },
        "components": components,
        "dependencies": dependencies,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
        "packages": [
            {"id": "p", "name": "program", "version": "0.1.0", "license": "Apache-2.0", "source": null},
            {"id": "a", "name": "linked", "version": "1.0.0", "license": "MIT/Apache-2.0", "source": "registry"},
            {"id": "b", "name": "builds", "version": "2.0.0", "license": "MIT", "source": "registry"},
            {"id": "t", "name": "tests", "version": "3.0.0", "license": "MIT", "source": "registry"}
        ],
        "resolve": {"nodes": [
            {"id": "p", "deps": [
                {"pkg": "a", "dep_kinds": [{"kind": null}, {"kind": "dev"}]},
                {"pkg": "t", "dep_kinds": [{"kind": "dev"}]}
            ]},
            {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": "build"}]}]},
            {"id": "b", "deps": []},
            {"id": "t", "deps": []}
        ]}
    }"#;
    const LOCK: &str = "[[package]]\nname = \"linked\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n\n[[package]]\nname = \"program\"\nversion = \"0.1.0\"\n";

    #[test]
    fn what_is_linked_or_builds_is_there_and_what_only_tests_need_is_not() {
        let metadata: Metadata = serde_json::from_str(METADATA).unwrap();
        let document = document(&metadata, &checksums(LOCK), "program").unwrap();
        let components = document["components"].as_array().unwrap();
        let names: Vec<_> = components.iter().map(|component| &component["name"]).collect();
        assert_eq!(names, ["linked", "builds"]);
        assert_eq!(components[0]["hashes"][0]["content"], "abc");
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(document["metadata"]["component"]["name"], "program");
        let needs = &document["dependencies"][2];
        assert_eq!(needs["ref"], "pkg:cargo/program@0.1.0");
        assert_eq!(needs["dependsOn"], json!(["pkg:cargo/linked@1.0.0"]));
    }

    #[test]
    fn a_program_that_is_none_of_ours_is_named() {
        let metadata: Metadata = serde_json::from_str(METADATA).unwrap();
        let error = document(&metadata, &BTreeMap::new(), "linked").unwrap_err();
        assert!(error.to_string().contains("no program linked"), "{error}");
    }
}
