//! Real git servers for tests: `git http-backend` behind a small HTTP server, and an `sshd`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Serves the repositories in `root` over HTTP, and returns `127.0.0.1:port`. With `login` (the
/// base64 of `user:password`) it wants that.
pub fn http(root: &Path, login: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let root = root.to_owned();
    // It ends with the test binary.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let root = root.clone();
            thread::spawn(move || answer(stream.expect("a connection"), &root, login));
        }
    });
    address
}

/// One request, handed to the CGI program that comes with git.
fn answer(mut stream: TcpStream, root: &Path, login: Option<&str>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut cgi = Command::new("git");
    cgi.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    cgi.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query);
    let (mut length, mut authorized) = (0, login.is_none());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().expect("a length"),
            "content-type" => _ = cgi.env("CONTENT_TYPE", value),
            "content-encoding" => _ = cgi.env("HTTP_CONTENT_ENCODING", value),
            "git-protocol" => _ = cgi.env("GIT_PROTOCOL", value),
            "authorization" => authorized |= login.is_some_and(|login| value == format!("Basic {login}")),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if !authorized {
        return stream.write_all(b"HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut cgi =
        cgi.env("CONTENT_LENGTH", length.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    cgi.stdin.take().expect("it is piped").write_all(&body)?;
    let answer = cgi.wait_with_output()?.stdout;
    let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
    let status = text.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n")?;
    stream.write_all(&answer)
}

/// An `sshd` of the test's own user on a port of its own.
pub struct Sshd {
    process: Child,
    pub port: u16,
    /// What `GIT_SSH_COMMAND` must be to get in.
    pub command: String,
    pub user: String,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// None where no `sshd` is installed.
pub fn sshd(dir: &Path) -> Option<Sshd> {
    // It is often in a folder that only root has on PATH, and wants to be called by its whole name.
    let folders = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    let program = folders.split(':').map(|dir| PathBuf::from(dir).join("sshd")).find(|path| path.exists())?;
    let user = Command::new("id").arg("-un").output().expect("id runs").stdout;
    let user = String::from_utf8(user).expect("a name").trim().to_owned();
    if user == "root" {
        std::fs::create_dir_all("/run/sshd").expect("sshd's own folder");
    }
    for key in ["host", "user"] {
        let file = dir.join(key);
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).status();
        assert!(made.expect("ssh-keygen runs").success());
    }
    let port =
        TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").port();
    let at = dir.display();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\n\
         PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
    );
    std::fs::write(dir.join("config"), config).expect("it can be written");
    let host = std::fs::read_to_string(dir.join("host.pub")).expect("a key");
    std::fs::write(dir.join("known"), format!("[127.0.0.1]:{port} {host}")).expect("it can be written");
    let mut sshd = Command::new(program);
    sshd.arg("-D").arg("-f").arg(dir.join("config")).stdin(Stdio::null()).stderr(Stdio::null());
    let command = format!(
        "ssh -F none -p {port} -i {at}/user -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none \
         -o UserKnownHostsFile={at}/known -o GlobalKnownHostsFile=/dev/null"
    );
    let sshd = Sshd { process: sshd.spawn().expect("sshd starts"), port, command, user };
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "sshd does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    Some(sshd)
}
