//! The coordinator's questions, one at a time, and their answers.

use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::v1 as wire;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::look::look;
use crate::config::Settings;
use crate::set_aside::SetAside;

/// So many are answered at once; more are left for whoever asks again.
const AT_ONCE: usize = 2;
/// Nothing takes longer.
const LONGEST: Duration = Duration::from_secs(30);

/// What questions are answered with.
#[derive(Debug, Clone)]
pub struct Desk {
    settings: watch::Receiver<Arc<Settings>>,
    aside: SetAside,
    /// The node's files are this machine's.
    machine: bool,
}

impl Desk {
    /// By the settings in force; `machine`: the node is no simulated one.
    pub fn new(settings: watch::Receiver<Arc<Settings>>, aside: &SetAside, machine: bool) -> Self {
        Self {
            settings,
            aside: aside.clone(),
            machine,
        }
    }

    /// Takes a question in; its answer comes out of `answers`. One too many is passed over.
    pub(crate) fn ask(
        &self,
        question: wire::ControlPlaneQuestion,
        answers: &mut JoinSet<wire::ControlPlaneAnswer>,
    ) {
        if answers.len() < AT_ONCE {
            let desk = self.clone();
            answers.spawn(async move { desk.answer(question).await });
        }
    }

    async fn answer(self, question: wire::ControlPlaneQuestion) -> wire::ControlPlaneAnswer {
        let settings = Arc::clone(&self.settings.borrow());
        let within = Duration::from_millis(question.within_ms).min(LONGEST);
        let report = if self.machine {
            look(&settings, &self.aside, within).await
        } else {
            wire::ControlPlaneReport {
                trouble: "a simulated machine has no static pods".to_owned(),
                ..wire::ControlPlaneReport::default()
            }
        };
        wire::ControlPlaneAnswer {
            question_id: question.question_id,
            report: Some(report),
        }
    }
}
