//! A link shortener: `POST /links` takes a long address, `GET /<code>` goes there.
//!
//! Here: the settings, the routes and the page. Elsewhere: the protocol (`http`) and the stored
//! links (`links`).
//!
//! There is no signal handler: norn moves the connections away before it sends SIGTERM, so ending
//! at once loses nothing.

mod http;
mod links;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, io};

use http::{Request, Response};
use links::{AddError, Links};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("links: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> io::Result<()> {
    let port = match env::var("PORT") {
        Ok(text) => text.parse::<u16>().map_err(|_| {
            io::Error::other(format!("PORT is {text:?}, which is no port: give a number from 1 to 65535"))
        })?,
        Err(_) => 8080,
    };
    let folder = PathBuf::from(env::var_os("DATA_DIR").unwrap_or_else(|| "data".into()));
    let links = Links::open(&folder)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
    let greeting = env::var("GREETING").unwrap_or_else(|_| "Hello!".to_owned());

    let listener = TcpListener::bind(("127.0.0.1", port))
        .map_err(|error| io::Error::new(error.kind(), format!("port {port}: {error}")))?;
    println!("links: listening on http://{}", listener.local_addr()?);
    http::serve(listener, move |request| answer(request, &links, &greeting))
}

fn answer(request: &Request, links: &Links, greeting: &str) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/") => Response::html(200, page(greeting, "")),
        ("GET" | "HEAD", "/healthz") => Response::text(200, "ok\n"),
        ("POST", "/links") => add(request, links, greeting),
        ("GET" | "HEAD", path) => match links.find(path.trim_start_matches('/')) {
            Ok(Some(target)) => Response::redirect(&target),
            Ok(None) => Response::text(404, "no such link\n"),
            Err(error) => failed(&error),
        },
        _ => Response::text(405, "this address takes GET; /links takes POST\n"),
    }
}

/// Takes a form (`url=https%3A%2F%2F...`), as a browser or `curl --data-urlencode` sends it.
fn add(request: &Request, links: &Links, greeting: &str) -> Response {
    let Some(target) = http::form_field(&request.body, "url") else {
        return Response::text(400, "send a form with the field url\n");
    };
    match links.add(target.trim()) {
        Ok(code) => {
            let code = escape(&code);
            Response::html(201, page(greeting, &format!("<p>Your link: <a href=\"/{code}\">/{code}</a></p>")))
        }
        Err(error @ AddError::NotALink) => Response::text(400, &format!("{error}\n")),
        Err(error @ AddError::Full) => Response::text(507, &format!("{error}\n")),
        Err(AddError::Io(error)) => failed(&error),
    }
}

fn failed(error: &io::Error) -> Response {
    eprintln!("links: {error}");
    Response::text(500, "the links cannot be read or written: see the log\n")
}

fn page(greeting: &str, result: &str) -> String {
    let greeting = escape(greeting);
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Links</title>
<style>
  body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem }}
  input, button {{ font: inherit; padding: .3rem .6rem }}
  input {{ width: 65% }}
</style>
<h1>{greeting}</h1>
<form method="post" action="/links">
  <input name="url" type="url" placeholder="https://..." required autofocus aria-label="A long address">
  <button>Shorten</button>
</form>
{result}
<footer><small>Answered by process {process}.</small></footer>
</html>
"#,
        process = std::process::id()
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn ask(links: &Links, method: &str, path: &str, body: &str) -> Response {
        let request =
            Request { method: method.into(), path: path.into(), body: body.into(), keep_alive: true };
        answer(&request, links, "<Hi>")
    }

    /// Runs `check` with links in a folder of its own, which is removed afterwards.
    fn with_links(name: &str, check: impl FnOnce(&Path, &Links)) {
        let folder = env::temp_dir().join(format!("links-{name}-{}", std::process::id()));
        let links = Links::open(&folder).expect("the temporary folder takes files");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&folder, &links)));
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn a_link_leads_where_it_was_told_to() {
        with_links("leads", |folder, links| {
            let made = ask(links, "POST", "/links", "url=https%3A%2F%2Fexample.com%2Fa%3Fb%3Dc+d%26e");
            assert_eq!(made.status, 400, "a space has no place in an address");
            let made = ask(links, "POST", "/links", "url=https%3A%2F%2Fexample.com%2Fa%3Fb%3Dc%26e");
            assert_eq!(made.status, 201);
            let code = links.add("https://example.com/a?b=c&e").expect("there is room");
            assert!(made.body.contains(&format!("href=\"/{code}\"")));

            // A second process on the same folder, such as the next release, knows it too.
            let other = Links::open(folder).expect("the folder is there");
            let gone = ask(&other, "GET", &format!("/{code}"), "");
            assert_eq!((gone.status, gone.location.as_deref()), (303, Some("https://example.com/a?b=c&e")));
        });
    }

    #[test]
    fn what_is_not_there_is_said() {
        with_links("said", |_, links| {
            assert_eq!(ask(links, "GET", "/healthz", "").status, 200);
            assert_eq!(ask(links, "GET", "/nothing", "").status, 404);
            assert_eq!(ask(links, "DELETE", "/", "").status, 405);
            assert_eq!(ask(links, "POST", "/links", "name=x").status, 400);
            assert_eq!(ask(links, "POST", "/links", "url=javascript:alert(1)").status, 400);
            assert!(ask(links, "GET", "/", "").body.contains("<h1>&lt;Hi&gt;</h1>"));
        });
    }
}
