import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from web import LARGEST_BODY, Server, Texts


class WebTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.texts = Texts(folder.name)
        self.server = Server(("127.0.0.1", 0), self.texts, "A <title>")
        running = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        running.start()
        self.addCleanup(running.join)
        self.addCleanup(self.server.stop)
        self.client = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=10)
        self.addCleanup(self.client.close)

    def ask(self, method, path, body=None):
        self.client.request(method, path, body)
        answer = self.client.getresponse()
        return answer.status, answer.read().decode()

    def test_a_text_waits_until_it_is_counted(self):
        self.assertEqual(self.ask("POST", "/texts", "text=one+two+%3Cb%3E")[0], 303)
        self.assertIn("one two &lt;b&gt;: <b>waiting</b>", self.ask("GET", "/")[1])
        waiting = self.texts.waiting()
        self.assertEqual(waiting["text"], "one two <b>")
        for _ in range(2):  # twice is once
            self.assertEqual(self.ask("PUT", f"/texts/{waiting['id']}", "3")[0], 200)
        self.assertIn("<b>3 words</b>", self.ask("GET", "/")[1])
        self.assertEqual(self.ask("GET", "/waiting"), (200, "null"))

    def test_one_connection_takes_many_requests(self):
        self.assertEqual(self.ask("GET", "/healthz"), (200, "ok\n"))
        first = self.client.sock
        self.assertEqual(self.ask("GET", "/nothing")[0], 404)
        self.assertEqual(self.ask("HEAD", "/"), (200, ""))
        self.assertIs(self.client.sock, first)

    def test_what_is_wrong_is_said(self):
        self.assertEqual(self.ask("POST", "/texts", "other=1")[0], 400)
        self.assertEqual(self.ask("PUT", "/texts/0-0", "3")[0], 404)
        self.assertEqual(self.ask("PUT", "/texts/..%2F..%2Fx", "3")[0], 404)
        self.assertEqual(self.ask("PUT", "/texts/0-0", "many")[0], 400)
        self.assertEqual(self.ask("POST", "/texts", "x" * (LARGEST_BODY + 1))[0], 413)
        self.assertEqual(self.ask("DELETE", "/")[0], 501)

    def test_garbage_gets_an_answer(self):
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=10) as raw:
            raw.sendall(b"\x16\x03\x01\x02\x00\xff\xfe\n\n")
            self.assertIn(b"400", raw.recv(1000))
        self.assertEqual(self.ask("GET", "/healthz")[0], 200)

    def test_sigterm_ends_it_while_a_client_is_connected(self):
        env = {**os.environ, "PORT": "0", "DATA_DIR": str(self.texts.folder)}
        command = [sys.executable, str(Path(__file__).with_name("web.py"))]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
            self.addCleanup(process.kill)
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            client.request("GET", "/healthz")
            client.getresponse().read()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=10), 0)
            client.close()


if __name__ == "__main__":
    unittest.main()
