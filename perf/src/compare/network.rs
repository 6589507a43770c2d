//! A network of our own for a comparison: a network namespace with a loopback whose routes name the congestion control of every connection.
//!
//! A comparison is fair only with the same congestion control for all, and most servers cannot be told which. The system's default is a
//! sysctl that is not ours to change, and other namespaces may not be given one that the host has not released to them; a route may name
//! any (`congctl`). Nothing of the host changes, and the namespace goes away with the last process in it. It also has addresses that
//! are not loopback's by name: 198.18.0.0/15, which is set aside for benchmarks (RFC 2544 appendix C.2.2), and where a connection to an
//! address comes from that same address, so that every leecher can have one of its own.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{getegid, geteuid};

use crate::peers;

/// Where servers are asked whether they are ready.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);

/// Where the first leecher connects to and comes from; the next ones follow it.
pub(crate) const FIRST_LEECHER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Moves this thread, and so everything it starts from now on, into a network of its own. To be called before any other thread is started.
///
/// # Errors
/// Namespaces are forbidden here, `ip` of iproute2 is missing, or the kernel has no such congestion control. Nothing has changed then, but for a
/// network without a way out where the last steps failed.
pub(crate) fn enter(congestion: &str) -> anyhow::Result<()> {
    let (user, group) = (geteuid(), getegid());
    let ip = peers::find("ip", "apt install iproute2")
        .map_err(|absent| anyhow!("no {}: {}", absent.name, absent.remedy))?;
    if user.is_root() {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
            .context("a network namespace of this user")?;
        let write = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text).with_context(|| format!("/proc/self/{file}"))
        };
        // Without the first line a process that is not root may not write the last (user_namespaces(7)).
        write("setgroups", "deny".into())?;
        write("uid_map", format!("0 {user} 1"))?;
        write("gid_map", format!("0 {group} 1"))?;
    }
    let control = format!("congctl {congestion}");
    for command in [
        "link set lo up".to_owned(),
        format!(
            "route replace local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1 {control}"
        ),
        format!(
            "route replace local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1 {control}"
        ),
        format!("route replace local 198.18.0.0/15 dev lo table local scope host {control}"),
    ] {
        run(&ip, &command)?;
    }
    let used = of_accepted()?;
    if used != congestion {
        bail!("connections use {used} in spite of the route");
    }
    Ok(())
}

fn run(ip: &Path, command: &str) -> anyhow::Result<()> {
    let output = Command::new(ip).args(command.split(' ')).output().context("ip")?;
    if !output.status.success() {
        bail!("ip {command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The congestion control that a server's connections have unless it chooses one.
///
/// # Errors
/// Those of sockets.
pub(crate) fn of_accepted() -> anyhow::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let _client = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    let name = getsockopt(&accepted, sockopt::TcpCongestion)?;
    Ok(name.to_string_lossy().trim_end_matches('\0').to_owned())
}

/// The congestion control of the connections that a server has on a port now; `None` where `ss` is not installed or does not say.
pub(super) fn of_port(port: u16) -> Option<String> {
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").ok()?;
    let mut command = Command::new("ss");
    let output =
        command.args(["-tinH", "state", "established", &format!("sport = :{port}")]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let used = |name: &&str| text.split_ascii_whitespace().any(|word| word == *name);
    let used: Vec<&str> = known.split_ascii_whitespace().filter(used).collect();
    (!used.is_empty()).then(|| used.join(" and "))
}

/// Whether being root means what it says, and is not a user namespace of a common user.
pub(crate) fn is_real_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let first: Vec<&str> = map.split_ascii_whitespace().take(2).collect();
    geteuid().is_root() && first == ["0", "0"]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: a namespace is the calling thread's, where root makes it. A common user's is the whole process's and refused
    /// to one of several threads, which is what a test is.
    #[test]
    fn every_connection_has_the_congestion_control_of_the_routes_and_leechers_their_addresses() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: a network namespace needs root, or a process of one thread");
            return;
        }
        let before = of_accepted().unwrap();
        let inside = std::thread::spawn(move || {
            let other = if before == "reno" { "cubic" } else { "reno" };
            if let Err(error) = enter(other) {
                eprintln!("SKIPPED: no network namespace here: {error:#}");
                return;
            }
            assert_eq!(of_accepted().unwrap(), other);
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            for last in 1..=3 {
                let leecher = Ipv4Addr::new(198, 18, 0, last);
                let _client = TcpStream::connect((leecher, port)).unwrap();
                assert_eq!(listener.accept().unwrap().1.ip(), leecher);
            }
        });
        inside.join().unwrap();
        assert!(enter("no such control").is_err());
    }
}
