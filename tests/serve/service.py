"""Running the service in a thread, and pictures to send."""

import contextlib
import io
import socket
import threading
import time

import httpx

from gazetell.serve.server import config


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


def ready(url):
    """Whether the models are warm."""
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(what, seconds=20):
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def png(width, height, colour=(200, 30, 30)):
    """The bytes of a plain picture."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()
