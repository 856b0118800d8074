"""Running the service in a thread, what to send to it, and how it refuses."""

import base64
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import httpx

from gazetell.serve.guard import CODES
from gazetell.serve.server import config

QUESTIONS = ["how many circles are there?", "what colour is the square?"]


@contextlib.contextmanager
def running(app):
    """Serve an application on a free port; yields its address. Stops gracefully."""
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config(app, app.state.service.options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        wait_until(lambda: ready(url))
        yield url
    finally:
        server.should_exit = True
        thread.join()


class Replicas(NamedTuple):
    """A service on replicas."""

    url: str
    log: Path
    process: subprocess.Popen

    def processes(self, name=""):
        """The processes that it started, by id, with their command lines; ``name`` is in those."""
        rows = subprocess.check_output(["ps", "-e", "-o", "pid=,ppid=,args="], text=True)
        table = [
            (int(pid), int(parent), args) for pid, parent, args in map(_row, rows.splitlines())
        ]
        found = {self.process.pid: ""}
        while more := {pid: args for pid, up, args in table if up in found and pid not in found}:
            found |= more
        return {pid: args for pid, args in found.items() if args and name in args}


def _row(line):
    return line.split(None, 2)


@contextlib.contextmanager
def on_replicas(log, *arguments):
    """``gazetell serve --engine ray`` in a session of its own; Ctrl-C ends it, and all of it."""
    command = [sys.executable, "-m", "gazetell", "serve", "--engine", "ray", "--port", "0"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=file,
            stderr=file,
            start_new_session=True,
            # In the background of a shell Ctrl-C is ignored, and that would be inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    service = Replicas("", log, process)
    begun = {}
    try:
        wait_until(lambda: process.poll() is not None or "\nhttp://" in log.read_text(), 200)
        url = re.search(r"^(http://\S+)/ ", log.read_text(), re.M)
        assert url, log.read_text()
        yield service._replace(url=url[1])
        begun = service.processes()
        assert process.poll() is None, log.read_text()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it, to all of the group
        assert process.wait(60) == 130, log.read_text()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in begun), 20)
        assert "Traceback" not in log.read_text()
    finally:
        for pid in (process.pid, *begun, *service.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def client_of(app):
    """A client of an application that is served meanwhile."""
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def ready(url):
    """Whether the models are warm."""
    try:
        # Without TLS, whose certificates are loaded anew by each of these requests.
        return httpx.get(f"{url}/readyz", verify=False).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(what, seconds=60):
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def figure(client, name):
    """A figure that the service tells Prometheus."""
    lines = client.get("/metrics").text.splitlines()
    return float(next(x.split()[1] for x in lines if x.startswith(f"{name} ")))


def is_problem(reply, code):
    """Check that a reply is a problem of this code; returns its sentence."""
    assert reply.headers["content-type"] == "application/problem+json"
    told = reply.json()
    assert told["code"] == code, told
    assert reply.status_code == told["status"] == CODES[code]
    assert told["detail"].strip()
    assert "\n" not in told["detail"]
    assert "Traceback" not in reply.text
    return told["detail"]


def text(content):
    """Base64."""
    return base64.b64encode(content).decode()


def png(width, height, colour=(200, 30, 30)):
    """The bytes of a plain picture."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()
