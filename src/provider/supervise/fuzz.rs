//! Whatever is said on a supervisor's socket: it is refused in one line or understood, and a line
//! that is refused changes nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::orders;
use super::protocol::{Envelope, Order, Report};
use super::server::{self, Options, Supervisor};
use super::wire::{self, Channel};

/// Far more than an answer takes.
const ANSWER: Duration = Duration::from_secs(5);

/// Reads what a client or a supervisor says, as the other side would.
pub fn protocol(input: &[u8]) -> bool {
    // Well below what a socket holds unread, so that no write waits.
    let input = &input[..input.len().min(64 << 10)];
    let first = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let order = orders::read(first);
    if let Ok(order) = &order {
        let line = serde_json::to_vec(order).expect("an order has text keys only");
        let again: Order = wire::parse(&line).expect("what was written is read");
        assert_eq!(serde_json::to_vec(&again).ok(), Some(line));
        quiet(order);
    }
    let report = wire::parse::<Report>(first);
    if let Ok(report) = &report {
        let line = serde_json::to_vec(report).expect("a report has text keys only");
        let again: Report = wire::parse(&line).expect("what was written is read");
        assert_eq!(serde_json::to_vec(&again).ok(), Some(line));
    }
    lines(input);
    // Any other order does something.
    if matches!(order, Err(_) | Ok(Order::Status | Order::Ask { .. } | Order::Taken { .. })) {
        answers(input);
    }
    order.is_ok() || report.is_ok()
}

/// What is printed of an order has no value of an app's environment.
fn quiet(order: &Order) {
    let Order::Roll(roll) = order else { return };
    let mut roll = roll.clone();
    for value in roll.env.0.values_mut() {
        *value = "\u{1}".repeat(8);
    }
    let shown = format!("{:?}", Envelope::new(Order::Roll(roll)));
    assert!(!shown.contains(r"\u{1}\u{1}"), "{shown}");
}

/// The lines that come out of a connection are those that went in.
fn lines(input: &[u8]) {
    let (runtime, _) = &*OFFICE;
    let mut expected: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    // What has no end is no line.
    expected.pop();
    let (mut client, server) = pair();
    let cut = input.len() / 3;
    let found = runtime.block_on(async {
        let mut channel = Channel::new(stream(server));
        let mut found = Vec::new();
        for part in [&input[..cut], &input[cut..]].into_iter().flat_map(|part| part.chunks(16 << 10)) {
            client.write_all(part).expect("there is room");
            for _ in part.split(|byte| *byte == b'\n').skip(1) {
                found.push(channel.line().await.expect("it is short").expect("it was sent"));
            }
        }
        drop(client);
        assert!(channel.line().await.expect("it is short").is_none());
        found
    });
    assert_eq!(found, expected);
}

/// A supervisor answers with one line, and is as before.
fn answers(input: &[u8]) {
    let (runtime, office) = &*OFFICE;
    let supervisor = &office.supervisor;
    let before = supervisor.status();
    let (mut client, server) = pair();
    client.write_all(input).expect("there is room");
    client.shutdown(std::net::Shutdown::Write).expect("it is open");
    let serving = async { timeout(ANSWER, orders::serve(Arc::clone(supervisor), stream(server))).await };
    runtime.block_on(serving).expect("a line is answered at once");
    let mut answer = Vec::new();
    // A server that leaves something unread resets the connection after its answer.
    let _reset = client.read_to_end(&mut answer);
    if input.contains(&b'\n') {
        let line = answer.strip_suffix(b"\n").expect("the answer is a line");
        wire::parse::<Report>(line).expect("the answer is a report");
    }
    assert_eq!(supervisor.status(), before);
    assert!(supervisor.desk().busy.is_none() && !*supervisor.ended.borrow());
}

/// Two ends of a connection: what this side writes or reads waits for nobody.
fn pair() -> (UnixStream, UnixStream) {
    let (client, server) = UnixStream::pair().expect("a socket");
    server.set_nonblocking(true).expect("it is open");
    client.set_read_timeout(Some(ANSWER)).expect("it is open");
    (client, server)
}

fn stream(server: UnixStream) -> tokio::net::UnixStream {
    tokio::net::UnixStream::from_std(server).expect("the runtime has sockets")
}

struct Office {
    supervisor: Arc<Supervisor>,
    _folder: TempDir,
}

/// A supervisor without anything to supervise.
static OFFICE: LazyLock<(Runtime, Office)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let folder = TempDir::new().expect("a temporary folder");
    let options = Options {
        app: "web".parse().expect("it is a name"),
        run: folder.path().join("run"),
        logs: folder.path().join("logs"),
        next: false,
        after: None,
    };
    let (supervisor, _) = runtime.block_on(server::set_up(&options)).expect("the folder is ours");
    (runtime, Office { supervisor, _folder: folder })
});
