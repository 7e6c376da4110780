//! Finds the coordinator that leads, among those that are known; or one that follows it, which asks it for us.

use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use blackstart_proto::v1;
use blackstart_proto::v1::audit_service_client::AuditServiceClient;
use blackstart_proto::v1::coordinator_service_client::CoordinatorServiceClient;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::runbook_service_client::RunbookServiceClient;
use blackstart_proto::v1::trust_service_client::TrustServiceClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::line::{Bearer, Line, Via};
use super::{Fleet, MAX_ANSWER_BYTES, bad_material, unreadable, why_unreached};
use crate::failure::{Attempt, Failure, Unreached};
use crate::settings::Connection;

/// Between two looks for a leader.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A coordinator that answers.
type Answering = (Channel, SocketAddr);

/// Who was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    leader: Option<Answering>,
    /// The first that follows a leader which it names.
    follower: Option<Answering>,
    /// The first that follows and knows of no leader.
    leaderless: Option<Answering>,
    /// Where nobody was reached who leads, and why not.
    attempts: Vec<Attempt>,
}

impl Found {
    pub(super) fn best(self) -> Option<Answering> {
        self.leader.or(self.follower).or(self.leaderless)
    }
}

impl Fleet {
    /// The coordinator that leads; or, where only such can be reached, one that follows it. While those that answer know of no leader,
    /// one is waited for, until the time-out.
    pub(crate) async fn connect(connection: &Connection, via: Via) -> Result<Self, Failure> {
        let until = Instant::now() + connection.timeout;
        loop {
            let found = search(connection, Wanted::Leader).await?;
            let known = found.leader.is_some() || found.follower.is_some();
            if known || found.leaderless.is_none() || Instant::now() >= until {
                return Self::over(found, connection, via);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The first coordinator that answers, whether it leads or not.
    pub(crate) async fn connect_to_any(connection: &Connection, via: Via) -> Result<Self, Failure> {
        Self::over(search(connection, Wanted::Any).await?, connection, via)
    }

    fn over(mut found: Found, connection: &Connection, via: Via) -> Result<Self, Failure> {
        let attempts = std::mem::take(&mut found.attempts);
        let (channel, address) = found.best().ok_or(Failure::Unreachable(attempts))?;
        let line = Line {
            channel: channel.clone(),
            connection: connection.clone(),
            via,
        };
        Ok(Self {
            coordinators: CoordinatorServiceClient::with_interceptor(
                channel,
                Bearer(connection.shows.clone()),
            ),
            runbooks: RunbookServiceClient::new(line.clone()),
            audit: AuditServiceClient::new(line.clone()).max_decoding_message_size(MAX_ANSWER_BYTES),
            trust: TrustServiceClient::new(line.clone()).max_decoding_message_size(MAX_ANSWER_BYTES),
            service: FleetServiceClient::new(line).max_decoding_message_size(MAX_ANSWER_BYTES),
            address,
            patience: connection.timeout,
        })
    }
}

/// Who is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Leader,
    Any,
}

/// Tries the addresses in turn, and where a follower says that its leader is, until who is wanted answers; each gets its share of
/// the time-out.
pub(super) async fn search(connection: &Connection, wanted: Wanted) -> Result<Found, Failure> {
    let tls = connection.shows.tls().map_err(|error| unreadable(&error))?;
    let bearer = Bearer(connection.shows.clone());
    let shares = u32::try_from(connection.coordinators.len())
        .unwrap_or(u32::MAX)
        .max(1);
    let share = connection.timeout / shares;
    let mut found = Found::default();
    let mut next: VecDeque<_> = connection.coordinators.iter().copied().collect();
    while let Some(address) = next.pop_front() {
        if found.attempts.iter().any(|attempt| attempt.address == address) {
            continue;
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(tls.clone()))
            .map_err(|error| bad_material(connection, &error))?
            .connect_timeout(share)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10));
        let why = match timeout(share, endpoint.connect()).await {
            Ok(Ok(channel)) => match leader_by(&channel, &bearer, share).await {
                Ok(None) => {
                    found.leader = Some((channel, address));
                    return Ok(found);
                }
                Ok(Some(leader)) => {
                    let place = if leader.is_empty() {
                        &mut found.leaderless
                    } else {
                        &mut found.follower
                    };
                    place.get_or_insert((channel, address));
                    if wanted == Wanted::Any {
                        return Ok(found);
                    }
                    for address in leader {
                        next.push_front(address);
                    }
                    Unreached::Follows
                }
                Err(why) => why,
            },
            Ok(Err(error)) => why_unreached(&error),
            Err(_) => Unreached::TimedOut,
        };
        found.attempts.push(Attempt { address, why });
    }
    Ok(found)
}

/// `None`: the coordinator at the other end leads. Else where it says that the leader is.
async fn leader_by(
    channel: &Channel,
    bearer: &Bearer,
    patience: Duration,
) -> Result<Option<Vec<SocketAddr>>, Unreached> {
    let mut service = CoordinatorServiceClient::with_interceptor(channel.clone(), bearer.clone());
    match timeout(
        patience,
        service.list_coordinators(v1::ListCoordinatorsRequest {}),
    )
    .await
    {
        Err(_) => Err(Unreached::TimedOut),
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            if answer.leads {
                return Ok(None);
            }
            let leaders = answer.coordinators.iter().filter(|coordinator| coordinator.leads);
            let addresses = leaders.flat_map(|leader| &leader.addresses);
            Ok(Some(
                addresses.filter_map(|address| address.parse().ok()).collect(),
            ))
        }
        // What it says to this it says to the command as well.
        Ok(Err(status)) => match status.source() {
            Some(source) => Err(why_unreached(source)),
            None => Ok(None),
        },
    }
}
