//! A node's image with further packages on it, for benchmarks beside other programs. The image that all tests use stays as it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::process::Command;

use super::{BUILD_DEADLINE, INIT_PATH, cache, ensure, fnv, lock};
use crate::disk::tool;
use crate::docker::{Docker, say};

/// Nothing is started while packages are installed, and their archives go with the container.
const INSTALL: &str = "set -e; printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; \
                       DEBIAN_FRONTEND=noninteractive dpkg -i /packages/*.deb >/dev/null; rm /usr/sbin/policy-rc.d";

/// The name of a node's image that has `packages` as well, after making it if the engine does not have it. They come from where this
/// machine's own packages come from, with all they need.
///
/// # Errors
/// Names what is missing: apt, a reachable mirror.
pub async fn ensure_with(docker: &Docker, packages: &[&str]) -> anyhow::Result<String> {
    let base = ensure(docker).await?;
    if packages.is_empty() {
        return Ok(base);
    }
    let digest = fnv([&base, packages.join(",").as_str(), INSTALL]
        .join("\0")
        .as_bytes());
    let name = format!("layer-{digest:016x}");
    let tag = format!("blackstart-testbed:{name}");
    if docker.run(["image", "inspect", &tag]).await.is_ok() {
        return Ok(tag);
    }
    let _lock = lock(&cache().join("layer.lock")).await?;
    let archives = cache().join("archives").join(&name);
    say(&format!("adding {} to a node's image", packages.join(", ")));
    download(docker, &base, &archives, packages)
        .await
        .with_context(|| {
            format!(
                "fetch {} (apt-get update, if apt does not find them)",
                packages.join(", ")
            )
        })?;
    let container = format!("blackstart-{name}");
    // Of a run that was killed; mostly there is none.
    let _gone = docker.run(["rm", "--force", &container]).await;
    let volume = format!("{}:/packages:ro", archives.display());
    let (named, mount) = (format!("--name={container}"), format!("--volume={volume}"));
    let run = [
        "run",
        &named,
        "--network=none",
        &mount,
        &base,
        "sh",
        "-c",
        INSTALL,
    ];
    let command = format!("CMD [{INIT_PATH:?}]");
    let commit = ["commit", "--change", &command, &container, &tag];
    let made = async {
        docker.run_within(BUILD_DEADLINE, run, &[]).await?;
        docker.run_within(BUILD_DEADLINE, commit, &[]).await
    }
    .await;
    docker.run(["rm", "--force", &container]).await?;
    made.context("install packages on a node's image")?;
    Ok(tag)
}

/// Fetches what the image lacks.
async fn download(docker: &Docker, base: &str, archives: &Path, packages: &[&str]) -> anyhow::Result<()> {
    fs::create_dir_all(archives.join("partial"))?;
    let has = docker
        .run([
            "run",
            "--rm",
            "--network=none",
            base,
            "cat",
            "/var/lib/dpkg/status",
        ])
        .await?;
    let status: PathBuf = archives.join("status");
    fs::write(&status, has + "\n")?;
    let mut fetch = Command::new("apt-get");
    fetch
        .args(["-qq", "-y", "--no-install-recommends", "--download-only"])
        .args(["-o", &format!("Dir::State::status={}", status.display())])
        .args(["-o", &format!("Dir::Cache::archives={}", archives.display())])
        .args(["-o", "APT::Sandbox::User=root", "install"])
        .args(packages);
    tokio::time::timeout(BUILD_DEADLINE, tool(&mut fetch))
        .await
        .with_context(|| format!("apt-get did not end within {BUILD_DEADLINE:?}"))??;
    Ok(())
}
