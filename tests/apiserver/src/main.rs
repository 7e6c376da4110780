//! Runs a double by hand: `apiserver-double --masters 3 --workers 5`, then `kubectl --server http://127.0.0.1:8001 get nodes`.

use anyhow::{Context, Result};
use blackstart_apiserver::{Clock, Double, NodeSpec, Options, Release};
use clap::Parser;
use std::net::SocketAddr;

/// A double of the Kubernetes API server with a simulated cluster, over plain HTTP. Machines are switched at
/// `/double/nodes/NAME/power-off`, `power-on`, `stop-kubelet` and `start-kubelet`, faults at `/double/faults/NAME` (`slow`, `hang`,
/// `reset`, `503`, `etcd-down`, `none`).
#[derive(Debug, Parser)]
#[command(name = "apiserver-double")]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    /// Masters of the cluster.
    #[arg(long, default_value_t = 1)]
    masters: u32,
    /// Workers of the cluster.
    #[arg(long, default_value_t = 3)]
    workers: u32,
    /// How many times faster than real its time goes by.
    #[arg(long, default_value_t = 1)]
    speed: u32,
    /// The minor version that it plays: 13 for 1.13.
    #[arg(long, default_value_t = Release::CURRENT.minor)]
    minor: u8,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = Options {
        listen: arguments.listen,
        release: Release {
            minor: arguments.minor,
        },
        clock: Clock::running(arguments.speed),
        ..Options::default()
    };
    let double = Double::start(options).await?;
    double.with(|world| {
        for number in 1..=arguments.masters {
            world.add_node(&NodeSpec::master(&format!("master-{number}")).static_control_plane());
        }
        for number in 1..=arguments.workers {
            world.add_node(&NodeSpec::worker(&format!("worker-{number}")));
        }
    });
    tokio::signal::ctrl_c().await.context("wait for ctrl-c")
}
