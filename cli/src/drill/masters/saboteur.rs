//! Somebody who breaks one law on purpose, to show that the drill finds it.

use std::fs;
use std::time::Duration;

use blackstart_agent::ledger::{Intent, Ledger, Outcome};
use blackstart_proto::part::Part;
use clap::ValueEnum;
use tokio::time::sleep;

use super::bed::Bed;
use super::chronicle::{Chronicle, Heard, Out};
use crate::failure::Failure;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::drill) enum Sabotage {
    /// Takes the manifests of two schedulers out at once
    TwoAtOnce,
    /// Writes a manifest anew
    Rewrite,
    /// Keeps from the drill what refusals say
    Mute,
    /// Has an agent obey what no run has told it
    RogueAgent,
    /// Takes away what the chapter is for
    Undone,
    /// Loses a key
    LoseKey,
    /// Removes what was set aside, and the snapshots
    NoCopy,
    /// Says that who had begun a run has approved of it
    OnePerson,
}

/// What he does on the masters, once the chapter is through.
pub(super) async fn work(what: Sabotage, bed: &Bed) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::other(format!("sabotage: {error}"));
    let moves = |back: bool| -> std::io::Result<()> {
        for master in &bed.masters[..2] {
            let (inside, outside) = (
                master.manifest(Part::Scheduler),
                master.files.etc.join("stolen.yaml"),
            );
            if back {
                fs::rename(outside, inside)?;
            } else {
                fs::rename(inside, outside)?;
            }
        }
        Ok(())
    };
    match what {
        Sabotage::TwoAtOnce => {
            moves(false).map_err(failed)?;
            // Until both kubelets have seen it.
            while bed
                .witness
                .outs()
                .iter()
                .filter(|out| out.back_ms.is_none())
                .count()
                < 2
            {
                sleep(Duration::from_millis(20)).await;
            }
            moves(true).map_err(failed)
        }
        Sabotage::Rewrite => {
            let path = bed.masters[0].manifest(Part::ControllerManager);
            let text = fs::read_to_string(&path).map_err(failed)?;
            fs::write(path, text + "# by somebody else\n").map_err(failed)?;
            let is_it =
                |out: &Out| out.node == bed.masters[0].name && out.pod == Part::ControllerManager.pod();
            while !bed.witness.outs().iter().any(is_it) {
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        }
        Sabotage::NoCopy => {
            for master in &bed.masters {
                for dir in [&master.files.snapshots, &master.files.data] {
                    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                        let name = entry.file_name().to_string_lossy().into_owned();
                        if name.starts_with("member.set-aside.") {
                            fs::remove_dir_all(entry.path()).map_err(failed)?;
                        } else if name != "member" {
                            fs::remove_file(entry.path()).map_err(failed)?;
                        }
                    }
                }
            }
            Ok(())
        }
        Sabotage::Mute
        | Sabotage::RogueAgent
        | Sabotage::Undone
        | Sabotage::LoseKey
        | Sabotage::OnePerson => Ok(()),
    }
}

/// What he does to what the drill has gathered.
pub(super) fn tamper(what: Sabotage, chronicle: &mut Chronicle) {
    match what {
        Sabotage::Mute => chronicle
            .heard
            .iter_mut()
            .for_each(|heard: &mut Heard| heard.said.clear()),
        Sabotage::Undone => chronicle
            .wrong
            .push("the API server of nobody is well".to_owned()),
        Sabotage::LoseKey => chronicle.lost.push("writer/00000000".to_owned()),
        Sabotage::OnePerson => {
            for run in &mut chronicle.runs {
                run.steps.iter_mut().for_each(|step| step.by_another = false);
            }
        }
        Sabotage::TwoAtOnce | Sabotage::Rewrite | Sabotage::RogueAgent | Sabotage::NoCopy => {}
    }
}

/// What he does to the ledger of an agent that has ended.
pub(super) fn forge(bed: &Bed) -> Result<(), Failure> {
    let master = &bed.masters[0];
    let failed = |error: blackstart_agent::ledger::LedgerError| {
        Failure::other(format!("forge the ledger of {}: {error}", master.name))
    };
    let (mut ledger, _) = Ledger::open(&master.files.ledger, "sabotage").map_err(failed)?;
    let sequence = ledger
        .intent(Intent {
            remedy: "control-plane-bounce".to_owned(),
            subject: "kube-apiserver".to_owned(),
            reason: "sabotage".to_owned(),
            command_id: Some("control-plane-99/0/1".to_owned()),
            dry_run: false,
        })
        .map_err(failed)?;
    let detail = "sabotage".to_owned();
    ledger
        .outcome(sequence, Outcome::Succeeded { detail })
        .map_err(failed)
}
