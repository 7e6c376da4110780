//! Default routes of the main table, from `/proc/net/route` and `/proc/net/ipv6_route`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::{fs, io};

use crate::signal::DefaultRoute;

/// `RTF_UP` of `linux/route.h`.
const UP: u32 = 0x1;
/// `RTF_REJECT`: a route that says no. IPv6 always has one.
const REJECT: u32 = 0x200;

/// All default routes, IPv4 first, each once.
///
/// # Errors
/// The tables cannot be read. A kernel without IPv6 has no table of it, which is no error.
pub(super) fn read(proc_net: &Path) -> io::Result<Vec<DefaultRoute>> {
    let v4 = fs::read_to_string(proc_net.join("route"))?;
    let v6 = match fs::read_to_string(proc_net.join("ipv6_route")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let mut routes: Vec<_> = v4.lines().filter_map(of_v4).collect();
    routes.extend(v6.lines().filter_map(of_v6));
    routes.dedup();
    Ok(routes)
}

/// `eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0`: interface, destination, gateway, flags, …, mask; addresses as the machine
/// keeps them in memory, which on every machine that Kubernetes runs on is the wrong way round.
pub(crate) fn of_v4(line: &str) -> Option<DefaultRoute> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [interface, destination, gateway, flags, _, _, _, mask, ..] = fields[..] else {
        return None;
    };
    let hex = |text| u32::from_str_radix(text, 16).ok();
    if hex(destination)? != 0 || hex(mask)? != 0 || !usable(hex(flags)?) {
        return None;
    }
    let gateway = Ipv4Addr::from(hex(gateway)?.to_ne_bytes());
    Some(DefaultRoute {
        gateway: (!gateway.is_unspecified()).then_some(IpAddr::V4(gateway)),
        interface: interface.to_owned(),
    })
}

/// `<destination> 00 <source> 00 <next hop> <metric> <references> <uses> <flags> eth0`.
pub(crate) fn of_v6(line: &str) -> Option<DefaultRoute> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [
        destination,
        length,
        _,
        source_length,
        hop,
        _,
        _,
        _,
        flags,
        interface,
    ] = fields[..]
    else {
        return None;
    };
    let address = |text| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from);
    let all = length == "00" && source_length == "00" && address(destination)?.is_unspecified();
    if !all || interface == "lo" || !usable(u32::from_str_radix(flags, 16).ok()?) {
        return None;
    }
    let hop = address(hop)?;
    Some(DefaultRoute {
        gateway: (!hop.is_unspecified()).then_some(IpAddr::V6(hop)),
        interface: interface.to_owned(),
    })
}

const fn usable(flags: u32) -> bool {
    flags & UP != 0 && flags & REJECT == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
*\t00000000\t00000000\t0200\t0\t0\t9999\t00000000\t0\t0\t0
";
    const V6: &str = "\
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000002 00000000 00450003     eth1
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    fn route(gateway: &str, interface: &str) -> DefaultRoute {
        DefaultRoute {
            gateway: Some(gateway.parse().unwrap()),
            interface: interface.to_owned(),
        }
    }

    #[test]
    fn default_routes_are_found_and_nothing_else_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("route"), V4).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [route("192.168.1.1", "eth0")]);
        fs::write(dir.path().join("ipv6_route"), V6).unwrap();
        assert_eq!(
            read(dir.path()).unwrap(),
            [route("192.168.1.1", "eth0"), route("fe80::1", "eth1")]
        );
    }

    #[test]
    fn a_table_that_cannot_be_read_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        read(dir.path()).unwrap_err();
    }

    #[test]
    fn the_machines_own_tables_can_be_read() {
        read(Path::new("/proc/self/net")).unwrap();
    }
}
