"""Fetches texts from the web app, counts their words and hands the counts back.

A text is counted again where this process ended between counting and handing back: that does no
harm, for the count is the same.
"""

import http.client
import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request


def count_words(text):
    return len(text.split())


def work_once(web):
    """Counts one text. Returns its id, or None where none is waiting."""
    with urllib.request.urlopen(f"{web}/waiting", timeout=10) as answer:
        waiting = json.load(answer)
    if waiting is None:
        return None
    count = str(count_words(waiting["text"])).encode()
    request = urllib.request.Request(f"{web}/texts/{waiting['id']}", data=count, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    return waiting["id"]


def main():
    web = os.environ.get("WEB_URL", "").rstrip("/")
    if not web:
        sys.exit("counter: WEB_URL is not set: give it the address of the web app")
    pause = float(os.environ.get("PAUSE", "1"))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print(f"counter: working for {web}", flush=True)
    while not stop.is_set():
        try:
            done = work_once(web)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # The web app may be on its way up or down: that is no reason to end.
            print(f"counter: {web}: {error}", flush=True)
            done = None
        if done:
            print(f"counter: counted {done}", flush=True)
        else:
            stop.wait(pause)
    print("counter: stopped", flush=True)


if __name__ == "__main__":
    main()
