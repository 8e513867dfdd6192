"""A page that takes texts, and the small API where a worker fetches them and leaves its counts.

Each text is a file in DATA_DIR: `<id>.todo` until its count is there, then `<id>.done`. Only this
process writes there. A file appears under its name in one rename, so none is ever seen half
written, and both the old and the new release may run for a moment.
"""

import html
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGEST_BODY = 64 * 1024
MOST_TEXTS = 1000
SHOWN = 20

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem }}
  textarea, button {{ font: inherit; padding: .3rem .6rem }}
  textarea {{ width: 100%; box-sizing: border-box }}
</style>
<h1>{title}</h1>
<form method="post" action="/texts">
  <textarea name="text" rows="4" required autofocus aria-label="A text"></textarea>
  <button>Count its words</button>
</form>
<ul>
{items}
</ul>
</html>
"""


class Texts:
    """The texts and their counts, as files of one folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, text):
        """Keeps a text and returns its id, or None where the folder is full."""
        if len(self.ids(".todo")) + len(self.ids(".done")) >= MOST_TEXTS:
            return None
        text_id = f"{time.time_ns():020d}-{os.getpid()}-{threading.get_ident()}"
        self._write(text_id, ".todo", {"text": text})
        return text_id

    def waiting(self):
        """The oldest text without a count as {"id", "text"}, or None."""
        for text_id in self.ids(".todo"):
            kept = self._read(text_id, ".todo")
            if kept:
                return {"id": text_id, "text": kept["text"]}
        return None

    def finish(self, text_id, words):
        """Stores a count. Twice is once. False where the text is unknown."""
        kept = self._read(text_id, ".todo")
        if kept is None:
            return self._read(text_id, ".done") is not None
        self._write(text_id, ".done", {"text": kept["text"], "words": words})
        (self.folder / f"{text_id}.todo").unlink(missing_ok=True)
        return True

    def newest(self):
        """The newest texts, each {"text"} and, once counted, "words"."""
        done, todo = self.ids(".done"), self.ids(".todo")
        newest = sorted(set(done) | set(todo), reverse=True)[:SHOWN]
        kept = (self._read(text_id, ".done") or self._read(text_id, ".todo") for text_id in newest)
        return [text for text in kept if text]

    def ids(self, suffix):
        return sorted(path.stem for path in self.folder.glob(f"*{suffix}"))

    def _read(self, text_id, suffix):
        try:
            return json.loads((self.folder / f"{text_id}{suffix}").read_text("utf-8"))
        except FileNotFoundError:
            return None

    def _write(self, text_id, suffix, value):
        half = self.folder / f"{text_id}{suffix}.{os.getpid()}.half"
        half.write_text(json.dumps(value), "utf-8")
        half.rename(self.folder / f"{text_id}{suffix}")


class Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for the answers under way
    request_queue_size = 128

    def __init__(self, address, texts, title):
        self.texts, self.title, self.open = texts, title, set()
        super().__init__(address, Handler)

    def stop(self):
        """Takes no more connections, lets each answer under way finish, then returns."""
        self.shutdown()
        for connection in list(self.open):
            try:
                # Ends the wait for a next request, not the answer to this one.
                connection.shutdown(socket.SHUT_RD)
            except OSError:
                pass  # The client left first.
        self.server_close()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive
    timeout = 75  # seconds a connection may be silent
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.open.add(self.connection)

    def finish(self):
        self.server.open.discard(self.connection)
        super().finish()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/":
            self.answer(200, self.page(), "text/html")
        elif path == "/healthz":
            self.answer(200, "ok\n")
        elif path == "/waiting":
            self.answer(200, json.dumps(self.server.texts.waiting()), "application/json")
        else:
            self.answer(404, "not here\n")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.body()
        if body is None:
            return
        if self.path != "/texts":
            return self.answer(404, "not here\n")
        text = urllib.parse.parse_qs(body).get("text", [""])[0].strip()
        if not text:
            return self.answer(400, "send a form with the field text\n")
        if self.server.texts.add(text) is None:
            return self.answer(507, "there is no room for another text\n")
        self.answer(303, "", headers={"Location": "/"})

    def do_PUT(self):
        body = self.body()
        if body is None:
            return
        address = re.fullmatch(r"/texts/([0-9-]{1,80})", self.path)
        if not address:
            return self.answer(404, "not here\n")
        try:
            words = int(body)
        except ValueError:
            return self.answer(400, "send the count as a number\n")
        known = self.server.texts.finish(address[1], words)
        self.answer(200 if known else 404, "ok\n" if known else "no such text\n")

    def body(self):
        """The body as text; None where there is none to take, which is answered here."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length):
            self.close_connection = True
            return self.answer(411, "send a Content-Length\n")
        if int(length) > LARGEST_BODY:
            self.close_connection = True
            return self.answer(413, f"send at most {LARGEST_BODY} bytes\n")
        return self.rfile.read(int(length)).decode("utf-8", "replace")

    def answer(self, status, text, kind="text/plain", headers=None):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def page(self):
        items = []
        for text in self.server.texts.newest():
            count = f"{text['words']} words" if "words" in text else "waiting"
            items.append(f"  <li>{html.escape(text['text'][:60])}: <b>{count}</b></li>")
        return PAGE.format(title=html.escape(self.server.title), items="\n".join(items))

    def log_request(self, code="-", size="-"):
        pass  # One line for every health check and every look of the worker says nothing.


def main():
    try:
        port = int(os.environ.get("PORT", "8080"))
        texts = Texts(os.environ.get("DATA_DIR", "data"))
        server = Server(("127.0.0.1", port), texts, os.environ.get("TITLE", "Word counts"))
    except (ValueError, OverflowError, OSError) as error:
        sys.exit(f"web: {error}")
    # `stop` waits for the loop that the signal interrupts, so it needs a thread of its own.
    stopping = threading.Thread(target=server.stop)

    def stop(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stopping.start()

    signal.signal(signal.SIGTERM, stop)
    print(f"web: listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    stopping.join()
    print("web: stopped", flush=True)


if __name__ == "__main__":
    main()
