import tempfile
import threading
import unittest

from web import Server, Texts
from worker import count_words, work_once


class WorkerTest(unittest.TestCase):
    def test_words_are_counted(self):
        self.assertEqual(count_words("  one\ntwo  three "), 3)
        self.assertEqual(count_words(""), 0)

    def test_each_text_is_counted_once_and_in_order(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        texts = Texts(folder.name)
        server = Server(("127.0.0.1", 0), texts, "")
        running = threading.Thread(target=server.serve_forever, args=(0.01,))
        running.start()
        self.addCleanup(running.join)
        self.addCleanup(server.stop)
        web = f"http://127.0.0.1:{server.server_port}"

        added = [texts.add("one two"), texts.add("one")]
        self.assertEqual([work_once(web), work_once(web), work_once(web)], [*added, None])
        self.assertEqual([text["words"] for text in texts.newest()], [1, 2])


if __name__ == "__main__":
    unittest.main()
