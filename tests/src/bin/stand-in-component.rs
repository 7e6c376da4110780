//! Stands in for a component of the control plane, under its name and with the flags that kubeadm gives it: answers every request with 200, until
//! it is stopped. Where it answers, `--secure-port` and `--bind-address` say; every other flag is let be. How it is otherwise, `/run/stand-in-moods/NAME`
//! says, see [`blackstart_tests::component`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use blackstart_tests::component::serve;
use blackstart_tests::docker::say;
use blackstart_tests::masters::MOODS;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default();
    let Some(address) = address(arguments) else {
        say("component: --secure-port is missing, or is no port");
        return ExitCode::FAILURE;
    };
    say(&format!("component answers on {address}"));
    match serve(address, &Path::new(MOODS).join(name)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("component: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The last of each flag counts.
fn address(arguments: impl Iterator<Item = String>) -> Option<SocketAddr> {
    let (mut ip, mut port) = (IpAddr::from(Ipv4Addr::LOCALHOST), None);
    for argument in arguments {
        if let Some(given) = argument.strip_prefix("--bind-address=") {
            ip = given.parse().ok()?;
        } else if let Some(given) = argument.strip_prefix("--secure-port=") {
            port = Some(given.parse().ok()?);
        }
    }
    port.map(|port| SocketAddr::new(ip, port))
}
