"""Running the service in a thread, what to send to it, and how it refuses."""

import base64
import contextlib
import io
import socket
import threading
import time

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


@contextlib.contextmanager
def client_of(app):
    """A client of an application that is served meanwhile."""
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def ready(url):
    """Whether the models are warm."""
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
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
