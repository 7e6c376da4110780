//! The coordinator's questions, a few at a time, and their answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blackstart_proto::v1 as wire;
use blackstart_proto::v1::etcd_answer::Body;
use blackstart_proto::v1::etcd_question::Ask;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::look::look;
use super::newcomer::{self, template};
use super::schedule::keep;
use super::snapshot;
use super::sources::search;
use super::trouble::{Kind, Trouble};
use crate::config::Settings;

/// So many are answered at once; more are left for whoever asks again.
const AT_ONCE: usize = 4;
/// Nothing takes longer: the longest is a read of every snapshot.
const LONGEST: Duration = Duration::from_mins(10);

/// What questions are answered with.
#[derive(Debug, Clone)]
pub struct Desk {
    settings: watch::Receiver<Arc<Settings>>,
    /// The node's files are this machine's.
    machine: bool,
    /// Why the snapshot that is due was not taken.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Desk {
    /// By the settings in force; `machine`: the node is no simulated one.
    pub fn new(settings: watch::Receiver<Arc<Settings>>, machine: bool) -> Self {
        Self {
            settings,
            machine,
            trouble: Arc::default(),
        }
    }

    /// Those in force.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// It is told with everything else until one was taken.
    pub(super) fn trouble(&self, why: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Has snapshots taken in their time, until `stop`.
    pub(crate) async fn keep_snapshots(self, stop: CancellationToken) {
        if self.machine {
            keep(self, stop).await;
        }
    }

    /// Takes a question in; its answer comes out of `answers`. One too many is passed over.
    pub(crate) fn ask(&self, question: wire::EtcdQuestion, answers: &mut JoinSet<wire::EtcdAnswer>) {
        if answers.len() < AT_ONCE {
            let desk = self.clone();
            answers.spawn(async move { desk.answer(question).await });
        }
    }

    async fn answer(self, question: wire::EtcdQuestion) -> wire::EtcdAnswer {
        let settings = self.settings();
        let within = Duration::from_millis(question.within_ms).min(LONGEST);
        let body = match question.ask {
            _ if !self.machine => Some(Body::Report(Box::new(wire::EtcdReport {
                trouble: Some(
                    Trouble::new(Kind::NoManifest, "a simulated machine has no etcd".to_owned()).to_wire(),
                ),
                ..wire::EtcdReport::default()
            }))),
            Some(Ask::Look(_)) => {
                let mut report = look(&settings, settings.etcd.deadline.min(within)).await;
                let due = self
                    .trouble
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                if let Some(why) = due.filter(|_| report.snapshot_trouble.is_empty()) {
                    report.snapshot_trouble = why;
                }
                Some(Body::Report(Box::new(report)))
            }
            Some(Ask::Verify(_)) => {
                let dir = settings.etcd.snapshots.dir.clone();
                let checks = timeout(within, spawn_blocking(move || snapshot::verify_all(&dir))).await;
                match checks {
                    Ok(Ok(checks)) => Some(Body::Verified(wire::EtcdVerified { checks })),
                    // Nobody waits for it any more.
                    Ok(Err(_)) | Err(_) => None,
                }
            }
            Some(Ask::Search(_)) => match timeout(within, search(&settings)).await {
                Ok(found) => Some(Body::Found(found)),
                Err(_) => None,
            },
            Some(Ask::Read(asked)) => {
                let dir = settings.etcd.snapshots.dir.clone();
                let read =
                    spawn_blocking(move || snapshot::piece(&dir, &asked.file, asked.offset, asked.at_most));
                let piece = match read.await {
                    Ok(Ok((data, bytes))) => wire::EtcdPiece {
                        data: data.into(),
                        bytes,
                        trouble: String::new(),
                    },
                    Ok(Err(trouble)) => wire::EtcdPiece {
                        trouble,
                        ..wire::EtcdPiece::default()
                    },
                    Err(_) => wire::EtcdPiece {
                        trouble: "it was broken off".to_owned(),
                        ..wire::EtcdPiece::default()
                    },
                };
                Some(Body::Piece(piece))
            }
            Some(Ask::Template(_)) => Some(Body::Template(template(&settings).await)),
            Some(Ask::Newcomer(asked)) => match timeout(within, newcomer::look(&settings, asked)).await {
                Ok(told) => Some(Body::Newcomer(told)),
                Err(_) => None,
            },
            // Of a later version.
            None => None,
        };
        wire::EtcdAnswer {
            question_id: question.question_id,
            body,
        }
    }
}
