//! Finds the coordinator that leads, among those that are known.

use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use blackstart_proto::tls;
use blackstart_proto::v1;
use blackstart_proto::v1::coordinator_service_client::CoordinatorServiceClient;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::{Fleet, MAX_ANSWER_BYTES, bad_material, unreadable, why_unreached};
use crate::failure::{Attempt, Failure, Unreached};
use crate::settings::Connection;

/// Between two looks for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Fleet {
    /// The coordinator that leads. While those that answer have none, it is waited for, until the time-out.
    pub(crate) async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let until = Instant::now() + connection.timeout;
        loop {
            let found = Self::search(connection, true).await;
            let Err(Failure::Unreachable(attempts)) = &found else {
                return found;
            };
            let follows = |attempt: &Attempt| attempt.why == Unreached::Follows;
            if !attempts.iter().any(follows) || Instant::now() >= until {
                return found;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The first coordinator that answers, whether it leads or not.
    pub(crate) async fn connect_to_any(connection: &Connection) -> Result<Self, Failure> {
        Self::search(connection, false).await
    }

    /// Tries the addresses in turn, and where a follower says that its leader is; each gets its share of the time-out.
    async fn search(connection: &Connection, for_leader: bool) -> Result<Self, Failure> {
        let material = connection.tls.read().map_err(|error| unreadable(&error))?;
        let tls = tls::client_config(&material);
        let shares = u32::try_from(connection.coordinators.len())
            .unwrap_or(u32::MAX)
            .max(1);
        let share = connection.timeout / shares;
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut next: VecDeque<_> = connection.coordinators.iter().copied().collect();
        while let Some(address) = next.pop_front() {
            if attempts.iter().any(|attempt| attempt.address == address) {
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
                Ok(Ok(channel)) => match leader_by(&channel, share).await {
                    Ok(leader) if !for_leader || leader.is_none() => {
                        return Ok(Self::over(channel, address, connection));
                    }
                    Ok(leader) => {
                        for address in leader.unwrap_or_default() {
                            next.push_front(address);
                        }
                        Unreached::Follows
                    }
                    Err(why) => why,
                },
                Ok(Err(error)) => why_unreached(&error),
                Err(_) => Unreached::TimedOut,
            };
            attempts.push(Attempt { address, why });
        }
        Err(Failure::Unreachable(attempts))
    }

    fn over(channel: Channel, address: SocketAddr, connection: &Connection) -> Self {
        Self {
            coordinators: CoordinatorServiceClient::new(channel.clone()),
            service: FleetServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES),
            address,
            patience: connection.timeout,
        }
    }
}

/// `None`: the coordinator at the other end leads. Else where it says that the leader is.
async fn leader_by(channel: &Channel, patience: Duration) -> Result<Option<Vec<SocketAddr>>, Unreached> {
    let mut service = CoordinatorServiceClient::new(channel.clone());
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
