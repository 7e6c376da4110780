//! What a master does about its runtime by the coordinator's permit.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::tls::TlsFiles;
use tokio::time::{Instant, timeout};

use super::machine::{DOCKER, Machine, Running, node};
use crate::config::{CoordinatorSettings, GateRole, PERMIT_WAIT, Settings};
use crate::decide::WaitingOn;
use crate::host::UnitAction::KillMain;
use crate::link::LinkState;
use crate::permit::{Answer, Said, Saying, Use, Verdict};
use crate::picture::Picture;
use crate::signal::ActiveState;

const SOON: Duration = Duration::from_hours(1);

/// A master whose runtime fails and is not mended by plain restarts.
async fn master(machine: &Arc<Machine>, up: bool) -> (tempfile::TempDir, Running) {
    let (dir, settings) = node();
    let mut settings = Settings {
        coordinator: Some(CoordinatorSettings {
            addresses: Vec::new(),
            tls: TlsFiles::in_dir(Path::new("/pki"), "node-1"),
            report_interval: Duration::from_secs(2),
            permit_wait: PERMIT_WAIT,
        }),
        ..settings
    };
    settings.gate.role = GateRole::ControlPlane;
    machine.heals(false);
    let agent = Running::start(&settings, machine).await;
    if up {
        agent.link.send_replace(LinkState::Up {
            since: Instant::now(),
            address: ([10, 0, 0, 1], 7443).into(),
        });
    }
    machine.set(DOCKER, ActiveState::Failed);
    (dir, agent)
}

/// Waits for what is said of permits to be like that.
async fn says(agent: &mut Running, like: impl Fn(&Said) -> bool) -> Said {
    let said = agent.wishes.wait_for(|said| said.iter().any(&like));
    let said = timeout(SOON, said).await.unwrap().unwrap().clone();
    said.iter().find(|said| like(said)).unwrap().clone()
}

fn asks(said: &Said) -> bool {
    matches!(said.what, Saying::Ask(_))
}

async fn answer(agent: &Running, id: &str, epoch: u64, verdict: Verdict) {
    let id = id.to_owned();
    agent.permits.send(Answer { id, epoch, verdict }).await.unwrap();
}

fn waits(picture: &Picture, reason: &str) -> bool {
    let told = |on: &WaitingOn| matches!(on, WaitingOn::Permit { on: Some(on), .. } if on.contains(reason));
    let waiting = picture
        .waiting
        .iter()
        .any(|waiting| waiting.subject == DOCKER && told(&waiting.on));
    let escalated = picture.conditions.iter().any(|condition| condition.escalated);
    waiting && escalated
}

#[tokio::test(start_paused = true)]
async fn the_kill_of_a_masters_runtime_waits_for_a_permit_and_one_of_an_older_epoch_begins_nothing() {
    let machine = Machine::new();
    let (_dir, mut agent) = master(&machine, true).await;
    let Said { id, .. } = says(&mut agent, asks).await;
    let on = "m-2, which has the lane".to_owned();
    answer(&agent, &id, 7, Verdict::Wait { on }).await;
    agent.sees(|picture| waits(picture, "m-2")).await;
    agent.wait(Duration::from_hours(1)).await;
    assert!(!machine.asked(DOCKER).contains(&KillMain));

    // Meanwhile another coordinator was obeyed.
    agent.ledger.lock().obey_epoch(8).unwrap();
    let granted = || Verdict::Granted {
        until: Instant::now() + Duration::from_mins(1),
    };
    answer(&agent, &id, 7, granted()).await;
    says(&mut agent, |said| {
        said.id == id && said.what == Saying::Return(Use::Unused)
    })
    .await;
    assert!(!machine.asked(DOCKER).contains(&KillMain));
    let again = says(&mut agent, asks).await.id;
    assert_ne!(again, id);

    machine.heals(true);
    answer(&agent, &again, 9, granted()).await;
    says(&mut agent, |said| {
        said.id == again && matches!(said.what, Saying::Return(Use::Succeeded { .. }))
    })
    .await;
    assert!(machine.asked(DOCKER).contains(&KillMain));
    assert_eq!(agent.ledger.lock().highest_epoch(), 9, "durable with the intent");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_session_for_long_a_master_goes_by_its_own_budget() {
    let machine = Machine::new();
    let (_dir, mut agent) = master(&machine, false).await;
    agent.sees(|picture| waits(picture, "no session")).await;
    assert!(!machine.asked(DOCKER).contains(&KillMain));
    agent.wait(PERMIT_WAIT).await;
    agent
        .records(|records| {
            records
                .iter()
                .any(|record| record.intent.remedy == "kill-restart-unit")
        })
        .await;
    agent.stop().await;
}
