//! A network of a bed's own: internal, so that nodes reach each other and the machine's end of the bridge, and nothing else.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, bail};

use crate::docker::{BED_LABEL, Docker};

/// So many subnets are tried.
const TRIES: u8 = 40;

/// The network of a bed: a /24.
#[derive(Debug, Clone)]
pub struct Network {
    name: String,
    /// The first three bytes of each address.
    prefix: [u8; 3],
}

impl Network {
    /// Makes one on a subnet that nothing on this machine routes to.
    ///
    /// # Errors
    /// No subnet is free, or the engine refuses.
    pub async fn make(docker: &Docker, bed: &str) -> anyhow::Result<Self> {
        let routes = fs::read_to_string("/proc/net/route").context("read the machine's routes")?;
        let taken = routed(&routes);
        let label = format!("{BED_LABEL}={bed}");
        let name = format!("blackstart-{bed}");
        let mut refusal = None;
        for _ in 0..TRIES {
            let prefix = [10, 180 + draw()? % 60, draw()?];
            let network = Self {
                name: name.clone(),
                prefix,
            };
            if taken.iter().any(|route| route.holds(network.gateway())) {
                continue;
            }
            let (subnet, gateway) = (
                format!("{}/24", network.address(0)),
                network.gateway().to_string(),
            );
            let args = [
                "network",
                "create",
                "--internal",
                "--label",
                &label,
                "--subnet",
                &subnet,
                "--gateway",
                &gateway,
                &name,
            ];
            match docker.run(args).await {
                Ok(_) => return Ok(network),
                // Another network of the engine may have it, in use or not.
                Err(error) if format!("{error:#}").contains("overlaps") => refusal = Some(error),
                Err(error) => return Err(error).context("make the network of the bed"),
            }
        }
        bail!("no free subnet for the bed in {TRIES} tries; the last refusal: {refusal:?}")
    }

    /// The network of a bed that is there.
    ///
    /// # Errors
    /// There is none.
    pub async fn open(docker: &Docker, bed: &str) -> anyhow::Result<Self> {
        let name = format!("blackstart-{bed}");
        let format = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
        let gateway: Ipv4Addr = docker
            .run(["network", "inspect", &name, "--format", format])
            .await
            .and_then(|text| Ok(text.trim().parse()?))
            .with_context(|| format!("find the network of bed {bed}"))?;
        let [a, b, c, _] = gateway.octets();
        Ok(Self {
            name,
            prefix: [a, b, c],
        })
    }

    /// As the engine calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The machine's own address on it.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// An address on it.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, host)
    }
}

/// A random byte; two beds that start together should not race for the same subnets.
fn draw() -> anyhow::Result<u8> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("draw a random number")?;
    u8::from_str_radix(&uuid[..2], 16).context("draw a random number")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    network: u32,
    mask: u32,
}

impl Route {
    /// Also when the route is the narrower of the two.
    fn holds(self, address: Ipv4Addr) -> bool {
        let mask = self.mask & 0xffff_ff00;
        self.mask != 0 && u32::from(address) & mask == self.network & mask
    }
}

/// The destinations of `/proc/net/route`: hexadecimal, in the machine's byte order.
fn routed(table: &str) -> Vec<Route> {
    let number = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::swap_bytes);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            Some(Route {
                network: number(fields.get(1)?)?,
                mask: number(fields.get(7)?)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_that_is_routed_is_not_free() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
             eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n\
             docker0 0000B40A 00000000 0001 0 0 0 0000FFFF 0 0 0\n";
        let routes = routed(table);
        let held = |address: [u8; 4]| routes.iter().any(|route| route.holds(address.into()));
        assert!(held([10, 180, 7, 1]));
        assert!(!held([10, 181, 7, 1]), "the default route takes nothing");
    }
}
