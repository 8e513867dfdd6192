//! As much of HTTP/1.1 as the app needs: a thread a connection, keep-alive, bodies with a
//! `Content-Length`, and a limit on everything a client can send.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const LARGEST_HEAD: u64 = 16 * 1024;
const LARGEST_BODY: usize = 16 * 1024;
const MOST_CONNECTIONS: usize = 256;
/// How long a connection may be silent between two requests, or within one.
const PATIENCE: Duration = Duration::from_secs(75);

pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub body: String,
    pub keep_alive: bool,
}

pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub location: Option<String>,
    pub body: String,
}

impl Response {
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", location: None, body: body.to_owned() }
    }

    pub fn html(status: u16, body: String) -> Self {
        Self { status, content_type: "text/html; charset=utf-8", location: None, body }
    }

    pub fn redirect(target: &str) -> Self {
        Self { location: Some(target.to_owned()), ..Self::text(303, "") }
    }
}

/// Answers connections, each in its own thread. Ends only with an error of the listener's.
pub fn serve<F>(listener: TcpListener, answer: F) -> io::Result<()>
where
    F: Fn(&Request) -> Response + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            // One client that left early, or too many open files: neither is a reason to end.
            Err(error) => {
                eprintln!("links: a connection was not taken: {error}");
                thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            let full = Response::text(503, "too many connections\n");
            let _ = send(&stream, &full, "GET", false);
            continue;
        }
        let (answer, left) = (Arc::clone(&answer), Leaving(Arc::clone(&open)));
        let started = thread::Builder::new().spawn(move || {
            let _left = left;
            // A client that went away is its own business.
            let _ = converse(&stream, answer.as_ref());
        });
        if let Err(error) = started {
            eprintln!("links: no thread for a connection: {error}");
        }
    }
}

/// Counts a connection as closed, however its thread ends.
struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse(stream: &TcpStream, answer: &dyn Fn(&Request) -> Response) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        match read_request(&mut reader)? {
            Received::End => return Ok(()),
            Received::Bad(status, why) => {
                send(stream, &Response::text(status, why), "GET", false)?;
                return hang_up(stream);
            }
            Received::Request(request) => {
                send(stream, &answer(&request), &request.method, request.keep_alive)?;
                if !request.keep_alive {
                    return Ok(());
                }
            }
        }
    }
}

/// Lets the client read the answer: closing with bytes unread would reset the connection.
fn hang_up(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    io::copy(&mut stream.take(64 * 1024), &mut io::sink())?;
    Ok(())
}

enum Received {
    Request(Request),
    Bad(u16, &'static str),
    End,
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Received> {
    let mut head = reader.by_ref().take(LARGEST_HEAD);
    let mut line = Vec::new();
    if head.read_until(b'\n', &mut line)? == 0 {
        return Ok(Received::End);
    }
    let Ok(first) = std::str::from_utf8(&line) else {
        return Ok(Received::Bad(400, "the request is not text\n"));
    };
    let words: Vec<String> = first.split_ascii_whitespace().map(str::to_owned).collect();
    let [method, target, version] = words.as_slice() else {
        return Ok(Received::Bad(400, "the request has no method, path and version\n"));
    };
    if !target.starts_with('/') || !version.starts_with("HTTP/1.") {
        return Ok(Received::Bad(400, "this server speaks HTTP/1.1\n"));
    }
    let mut keep_alive = version == "HTTP/1.1";
    let mut length = 0;
    loop {
        line.clear();
        head.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(Received::Bad(431, "the headers end too early or are too large\n"));
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            break;
        }
        let Some((name, value)) = text.split_once(':') else {
            return Ok(Received::Bad(400, "a header has no colon\n"));
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "connection" if value.eq_ignore_ascii_case("close") => keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => keep_alive = true,
            "transfer-encoding" => return Ok(Received::Bad(501, "send a Content-Length\n")),
            "content-length" => match value.parse() {
                Ok(bytes) if bytes <= LARGEST_BODY => length = bytes,
                Ok(_) => return Ok(Received::Bad(413, "the body is too large\n")),
                Err(_) => return Ok(Received::Bad(400, "Content-Length is no number\n")),
            },
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let Ok(body) = String::from_utf8(body) else {
        return Ok(Received::Bad(400, "the body is not text\n"));
    };
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Ok(Received::Request(Request { method: method.clone(), path, body, keep_alive }))
}

fn send(mut stream: &TcpStream, response: &Response, method: &str, keep_alive: bool) -> io::Result<()> {
    let reason = match response.status {
        200 => "OK",
        201 => "Created",
        303 => "See Other",
        404 => "Not Found",
        405 => "Method Not Allowed",
        status if status < 500 => "Bad Request",
        _ => "Server Error",
    };
    let mut text = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
        response.status,
        response.content_type,
        response.body.len()
    );
    if let Some(location) = &response.location {
        text += &format!("Location: {location}\r\n");
    }
    if response.status == 405 {
        text += "Allow: GET, HEAD, POST\r\n";
    }
    text += if keep_alive { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" };
    if method != "HEAD" {
        text += &response.body;
    }
    stream.write_all(text.as_bytes())
}

/// The value of one field of an `application/x-www-form-urlencoded` body.
pub fn form_field(body: &str, wanted: &str) -> Option<String> {
    let mut fields = body.split('&').filter_map(|field| field.split_once('='));
    fields.find(|(name, _)| *name == wanted).map(|(_, value)| percent_decoded(value))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `bytes` to a server that answers each path with itself, and returns all it says.
    fn say(bytes: &[u8]) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || serve(listener, |request| Response::text(200, &request.path)));
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.write_all(bytes).expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("it is connected");
        let mut said = Vec::new();
        // A reset after an error answer leaves what came before it.
        let _ = stream.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    }

    #[test]
    fn one_connection_takes_many_requests() {
        let said = say(b"GET /a HTTP/1.1\r\n\r\nPOST /b?c HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\
            GET /d HTTP/1.1\r\nConnection: close\r\n\r\nGET /e HTTP/1.1\r\n\r\n");
        assert_eq!(said.matches("200 OK").count(), 3, "{said}");
        assert!(said.contains("\r\n\r\n/bHTTP") && said.ends_with("/d"), "{said}");
    }

    #[test]
    fn garbage_gets_an_answer_and_a_closed_connection() {
        let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        for (garbage, status) in [
            (&b"\x16\x03\x01\x02\x00\xff\xfe\n"[..], "400"),
            (b"\r\n", "400"),
            (b"GET /\r\n\r\n", "400"),
            (b"GET / HTTP/2.0\r\n\r\n", "400"),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "400"),
            (b"GET / HTTP/1.1\r\nX: y", "431"),
            (large.as_bytes(), "431"),
            (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"),
            (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "413"),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "501"),
            (b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n\xff", "400"),
        ] {
            let said = say(garbage);
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{garbage:?}: {said}");
            assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{garbage:?}: {said}");
        }
        assert_eq!(say(b""), "");
    }

    #[test]
    fn a_form_is_decoded_even_where_it_is_broken() {
        assert_eq!(form_field("a=1&url=x%20y%3D+z", "url").as_deref(), Some("x y= z"));
        assert_eq!(form_field("url=%zz%4%", "url").as_deref(), Some("??"));
        assert_eq!(form_field("a", "url"), None);
    }
}
