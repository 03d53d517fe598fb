"""A headless Chromium, driven by the DevTools protocol through pipes: no driver has to be
installed.
"""

import base64
import functools
import http.server
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed"
)
PATIENCE = 240
"""Seconds until a page that does not answer has failed."""
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
    "--window-size=1200,1500",
]


class Browser:
    """One page of a browser of its own."""

    def __init__(self, profile, *flags):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = [
            CHROMIUM,
            *FLAGS,
            *flags,
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._answers = {}
        self._arrived = queue.Queue()
        self._number = 0
        self.requests, self.console = [], []
        threading.Thread(target=self._listen, daemon=True).start()
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        return self._call(method, session=self._session, **params)

    def _call(self, method, *, session=None, **params):
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while number not in self._answers:
            assert time.monotonic() < end, f"{method}: no answer"
            try:
                self._take(self._arrived.get(timeout=1))
            except queue.Empty:
                assert self._process.poll() is None, "chromium has ended"
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _listen(self):
        waiting = b""
        while data := os.read(self._in, 2**20):
            *messages, waiting = (waiting + data).split(b"\0")
            for message in messages:
                self._arrived.put(json.loads(message))

    def _take(self, message):
        if "id" in message:
            self._answers[message["id"]] = message
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if message.get("method") == "Log.entryAdded":
            self.console.append(params["entry"]["text"])
        if message.get("method") == "Runtime.consoleAPICalled":
            parts = [str(a.get("value", a.get("description"))) for a in params["args"]]
            self.console.append(f"{params['type']}: {' '.join(parts)}")
        if message.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"].get("exception")))

    def open(self, url):
        self.call("Page.navigate", url=url)

    def value(self, expression):
        """The value of a JavaScript expression, awaited."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression, *, patience=PATIENCE):
        """Ask until an expression is true; its value."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            value = self.value(expression)
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"never true: {expression}; {self.console}")

    def choose(self, selector, *paths):
        """Choose files in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        files = [str(path) for path in paths]
        self.call("DOM.setFileInputFiles", nodeId=node, files=files)
        # a folder is looked through before its files are there
        quoted = json.dumps(selector)
        self.wait_for(f"document.querySelector({quoted}).files.length > 0")

    def click(self, selector):
        self.value(f"document.querySelector({json.dumps(selector)}).click()")

    def text(self, selector):
        quoted = json.dumps(selector)
        return self.value(f"document.querySelector({quoted}).innerText")

    def screenshot(self, file):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def downloaded(self):
        """The bytes of the label map that is offered."""
        script = """
            fetch(document.getElementById("download").href)
              .then((response) => response.blob())
              .then((blob) => new Promise((resolve) => {
                const reader = new FileReader();
                reader.onload = () => resolve(reader.result.split(",")[1]);
                reader.readAsDataURL(blob);
              }))
        """
        return base64.b64decode(self.value(script))

    def close(self):
        try:
            self._call("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait(timeout=20)


@contextmanager
def opened(profile, *flags):
    browser = Browser(profile, *flags)
    try:
        yield browser
    finally:
        browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(folder):
    """A plain static server of a folder; its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def isolated(folder):
    """The server that the page brings along; its address."""
    command = [sys.executable, str(folder / "serve.py"), "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split()[0] + "/"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
