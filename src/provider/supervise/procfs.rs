//! What `/proc` tells of processes, their groups and the ports they listen on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A process that lives; a zombie does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
}

/// Every process that lives.
pub fn processes() -> Vec<Process> {
    pids().filter_map(process).collect()
}

/// The living members of a process group.
pub fn members(group: u32) -> Vec<u32> {
    processes().into_iter().filter(|process| process.group == group).map(|process| process.pid).collect()
}

/// Whether the process was started with this variable. Processes of other users have none that
/// this one may see.
pub fn has_variable(pid: u32, name: &str, value: &Path) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = [name.as_bytes(), b"=", value.as_os_str().as_encoded_bytes()].concat();
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
}

/// Where the processes of a group listen on TCP, sorted.
pub fn listens(group: u32) -> Vec<SocketAddr> {
    let sockets = listening_sockets();
    let mut found: Vec<SocketAddr> = members(group)
        .into_iter()
        .flat_map(socket_inodes)
        .filter_map(|inode| sockets.get(&inode).copied())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Who listens on a TCP port: `pid 42 (python3 -m http.server)`, where this user may see it.
pub fn holder(port: u16) -> Option<String> {
    let mut sockets = listening_sockets();
    sockets.retain(|_, address| address.port() == port);
    if sockets.is_empty() {
        return None;
    }
    pids().find(|pid| socket_inodes(*pid).iter().any(|inode| sockets.contains_key(inode))).map(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        format!("pid {pid} ({})", command.trim().chars().take(200).collect::<String>())
    })
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process, while it lives.
pub fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in brackets and may hold any character, brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, group, session })
}

fn socket_inodes(pid: u32) -> Vec<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| {
            let target = fs::read_link(descriptor.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Every TCP socket in state LISTEN of this network namespace, by inode.
fn listening_sockets() -> BTreeMap<u64, SocketAddr> {
    let read = |path| fs::read_to_string(path).or_else(|_: io::Error| Ok::<_, io::Error>(String::new()));
    let tables = [read("/proc/net/tcp"), read("/proc/net/tcp6")];
    tables.iter().flatten().flat_map(|table| table.lines().skip(1)).filter_map(listening).collect()
}

/// One line of `/proc/net/tcp{,6}`, if its socket listens (state 0A).
fn listening(line: &str) -> Option<(u64, SocketAddr)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields[..] else { return None };
    let (address, port) = local.split_once(':')?;
    Some((inode.parse().ok()?, SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?)))
}

/// An address as the kernel prints it: words of four bytes, each in the machine's byte order.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().expect("a bound socket").port();
            let holder = holder(port).expect("this process holds it");
            assert!(holder.starts_with(&format!("pid {} (", std::process::id())), "{holder}");
            drop(listener);
            assert_eq!(super::holder(port), None);
        }
    }

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0";
        let expected = SocketAddr::from(([127, 0, 0, 1], 8080));
        #[cfg(target_endian = "little")]
        assert_eq!(listening(line), Some((4242, expected)));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
    }
}
