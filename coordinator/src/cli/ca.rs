//! `ca`: one authority takes the place of another. It works on files, beside a coordinator that runs; a restart of that makes it count.

use anyhow::{Context, bail};
use serde::Serialize;

use super::{Output, complain, counted, say};
use crate::audit::local::{self, Typed};
use crate::config::{Settings, StoreSettings};
use crate::inventory::{self, NodeName};
use crate::pki::rotation::{self, Rotated};
use crate::pki::{Authority, PkiError};
use crate::run;
use crate::store::backup::Bytes;
use crate::trust::book::Issued;
use crate::trust::desk::{ISSUED, is_behind};
use crate::upkeep::{self, UpkeepError};

const RESTART: &str = "systemctl restart blackstart-coordinator";

/// How far it is.
#[derive(Debug, Serialize)]
struct Stand {
    /// The digests of the authorities that are trusted, the one that issues last.
    trusted: Vec<String>,
    rotating: bool,
    nodes: usize,
    /// Nodes of the inventory that have not renewed since.
    behind: Vec<String>,
}

fn authority(settings: &Settings) -> anyhow::Result<&std::path::Path> {
    let Some(enrolment) = &settings.enrolment else {
        bail!(
            "`enrolment` in the configuration names no authority; with certificates made by hand there is nothing that renews them"
        )
    };
    Ok(&enrolment.authority)
}

/// What nodes were given, by the keys of the store: of the whole fleet, whichever of several coordinators has given it.
async fn given(settings: &Settings) -> anyhow::Result<Vec<(String, Bytes)>> {
    if let StoreSettings::Etcd(etcd) = &settings.store {
        let values = run::several::values(etcd, ISSUED).await?;
        return Ok(values
            .into_iter()
            .map(|(key, value)| (key, value.as_slice().into()))
            .collect());
    }
    match upkeep::snapshot(settings) {
        Ok((snapshot, _)) => Ok(snapshot.values),
        // It has never run: nobody has joined.
        Err(UpkeepError::NoStore(_)) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// What the store and the files say.
async fn stand(settings: &Settings) -> anyhow::Result<Stand> {
    let trusted: Vec<_> = Authority::open(authority(settings)?)?
        .trusted()
        .into_iter()
        .map(|trusted| trusted.hash)
        .collect();
    let inventory = inventory::load(&settings.inventory)?.inventory;
    let issued = |node: &NodeName, values: &[(String, Bytes)]| {
        let key = format!("{ISSUED}{node}");
        let (_, value) = values.iter().find(|(known, _)| *known == key)?;
        serde_json::from_slice::<Issued>(value.as_slice()).ok()
    };
    let values = given(settings).await.context("look up what nodes were given")?;
    let behind = inventory.nodes.keys();
    let behind: Vec<_> = behind
        .filter(|node| is_behind(issued(node, &values).as_ref(), &trusted))
        .map(ToString::to_string)
        .collect();
    Ok(Stand {
        rotating: trusted.len() > 1,
        nodes: inventory.nodes.len(),
        trusted,
        behind,
    })
}

fn done(rotated: &Rotated) -> anyhow::Result<()> {
    for hash in &rotated.trusted {
        say(&format!("trusted: {hash}"))?;
    }
    for holder in &rotated.issued {
        say(&format!("a new certificate for {holder}"))?;
    }
    Ok(())
}

/// Does it, and has both that it was asked and what came of it stand in the audit. One that cannot be written is said, and keeps nobody from it.
fn audited(
    settings: &Settings,
    what: (&str, &str),
    work: impl FnOnce() -> Result<Rotated, PkiError>,
) -> anyhow::Result<Rotated> {
    note(settings, what, "asked", String::new());
    let worked = work();
    match &worked {
        Ok(rotated) => note(
            settings,
            what,
            "done",
            format!("trusted: {}", rotated.trusted.join(", ")),
        ),
        Err(error) => note(settings, what, "failed", error.to_string()),
    }
    Ok(worked?)
}

/// What was typed, with which arguments, and what came of it.
fn note(settings: &Settings, (what, asked): (&str, &str), outcome: &str, evidence: String) {
    let typed = Typed {
        what: what.to_owned(),
        asked: asked.to_owned(),
        outcome: outcome.to_owned(),
        evidence,
        sudo: std::env::var("SUDO_USER").unwrap_or_default(),
    };
    if let Err(error) = local::note(&settings.audit_socket(), &settings.audit(), typed) {
        let dir = settings.audit();
        complain(&format!(
            "warning: this does not stand in the audit ({}): {error}",
            dir.display()
        ));
    }
}

pub(super) fn rotate(settings: &Settings) -> anyhow::Result<()> {
    let dir = authority(settings)?;
    done(&audited(settings, ("ca rotate", ""), || rotation::begin(dir))?)?;
    say(&format!("make it count: {RESTART}"))?;
    say("then every node renews within minutes: blackstart-coordinator ca status")?;
    say(
        "operators on other machines need their new certificate, and ca.crt; further coordinators ca.crt, ca.key and a restart",
    )
}

pub(super) async fn status(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let stand = stand(settings).await?;
    if output == Output::Json {
        return say(&serde_json::to_string_pretty(&stand)?);
    }
    for hash in &stand.trusted {
        say(&format!("trusted: {hash}"))?;
    }
    let (issuing, renewed) = (stand.trusted.last(), stand.nodes - stand.behind.len());
    say(&format!("issuing: {}", issuing.map_or("-", String::as_str)))?;
    say(&format!("renewed: {renewed} of {}", counted(stand.nodes, "node")))?;
    for node in &stand.behind {
        say(&format!("not yet: {node}"))?;
    }
    match (stand.rotating, stand.behind.is_empty()) {
        (true, true) => say("every node trusts both: blackstart-coordinator ca finish"),
        (true, false) => say(&format!(
            "the old one is still needed; nodes renew once the coordinator was started anew ({RESTART}) and they are in session"
        )),
        (false, _) => say("one authority; no other takes its place"),
    }
}

pub(super) async fn finish(settings: &Settings, force: bool) -> anyhow::Result<()> {
    let behind = match stand(settings).await {
        Ok(stand) if !stand.rotating => {
            return Err(PkiError::NotRotating(authority(settings)?.to_owned()).into());
        }
        Ok(stand) => stand.behind,
        Err(error) if force => {
            say(&format!("who still needs the old one is not known: {error:#}"))?;
            Vec::new()
        }
        Err(error) => return Err(error.context("with --force it is not asked for")),
    };
    if !behind.is_empty() && !force {
        note(
            settings,
            ("ca finish", ""),
            "refused",
            format!("locked out: {}", behind.join(", ")),
        );
        bail!(
            "{} would be locked out, and could only join anew: {}; wait for them, take them out of the inventory, or say --force",
            counted(behind.len(), "node"),
            behind.join(", ")
        );
    }
    let dir = authority(settings)?;
    let asked = if behind.is_empty() {
        String::new()
    } else {
        format!("--force; locked out: {}", behind.join(", "))
    };
    done(&audited(settings, ("ca finish", &asked), || {
        rotation::finish(dir)
    })?)?;
    for node in &behind {
        say(&format!(
            "locked out: {node}; let it join anew: blackstart token create --node {node}, and there: blackstart-agent join … --anew"
        ))?;
    }
    say(&format!("make it count: {RESTART}"))
}
