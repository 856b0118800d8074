"""What goes wrong on a network: the service answers on, and keeps nothing."""

import asyncio
import concurrent.futures
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys

import httpx
import pytest
import torch
from service import figure, png, ready, running, wait_until

from gazetell.models.folder import save_model
from gazetell.serve.api import create_app
from gazetell.serve.engine import Engine, Work
from gazetell.serve.guard import Monitor, ServeOptions

CHANCE = random.Random(0)


@pytest.fixture(scope="module")
def url(models):
    with running(create_app(models, ServeOptions(receive_seconds=1, uploads=0.5, queue=16))) as url:
        yield url


@pytest.fixture
def client(url):
    """Afterwards the service answers as before, and holds nothing."""
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client
        for name in ("gazetell_upload_bytes", "gazetell_queue"):
            wait_until(lambda name=name: figure(client, name) == 0)
        reply = client.post("/v1/caption", files={"image": png(20, 20)})
        assert reply.status_code == 200, reply.text


def connect(url):
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def head(length, content="application/json"):
    return (
        f"POST /v1/caption HTTP/1.1\r\nHost: x\r\nContent-Type: {content}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_a_body_that_stops_halfway_is_forgotten(client, url):
    for _ in range(20):
        with connect(url) as connection:
            connection.sendall(head(1000) + b"x" * 500)
    wait_until(lambda: 'status="499"} 20.0' in client.get("/metrics").text)
    assert 'code="internal"' not in client.get("/metrics").text


def test_a_head_without_end_is_refused(client, url):
    with connect(url) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"POST /v1/caption HTTP/1.1\r\nHost: x\r\nX: ")
        for _ in range(200):
            connection.sendall(b"x" * 2**14)
        pytest.fail("3 MiB of a header were taken")


def test_a_client_that_is_too_slow_is_told_so(client, url):
    with connect(url) as connection:
        connection.sendall(head(1000) + b"x")
        reply = b""
        while piece := connection.recv(4096):  # until the service closes the connection
            reply += piece
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"receive_timeout" in reply


def test_too_much_at_once_is_sent_away(client, url):
    connections = [connect(url) for _ in range(4)]
    for connection in connections:  # half a MiB may be in memory; each of these is 0.2
        connection.sendall(head(300_000) + b"x" * 200_000)
    replies = []
    for connection in connections:
        replies.append(connection.recv(4096).split(b" ")[1])
        connection.close()
    assert set(replies) == {b"408", b"503"}
    assert 1 <= replies.count(b"503") <= 2


def test_two_hundred_connections_are_no_hindrance_and_too_many_are_refused(client, url):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(url)) for _ in range(200)]
        for connection in idle[::2]:
            connection.sendall(head(50) + b"{")
        assert client.post("/v1/caption", files={"image": png(20, 20)}).status_code == 200
        for _ in range(80):
            stack.enter_context(connect(url))
        with httpx.Client(base_url=url, timeout=60) as late:
            assert late.get("/healthz").status_code == 503
    wait_until(lambda: httpx.get(f"{url}/healthz").status_code == 200)


def test_damaged_requests_are_refused(client, url):
    for _ in range(50):
        kind = CHANCE.choice(["application/json", "multipart/form-data; boundary=b", "text/x"])
        body = CHANCE.choice(
            [b'{"image": "', b'--b\r\nContent-Disposition: form-data; name="', b""]
        )
        body += CHANCE.randbytes(CHANCE.randrange(200))
        with connect(url) as connection:
            connection.sendall(head(len(body), kind) + body)
            assert 400 <= int(connection.recv(4096).split(b" ")[1]) < 500


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM on Windows")
def test_a_terminated_service_answers_what_it_took_in(untrained, tmp_path, picture):
    save_model(tmp_path / "model", untrained())
    command = [sys.executable, "-m", "gazetell", "serve", "--port", "0"]
    # They are all in the queue long before the first of them has waited enough.
    command += ["--model", str(tmp_path / "model"), "--gather", "1500"]
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        lines = iter(service.stderr.readline, "")
        url = next(x.split()[0].rstrip("/") for x in lines if x.startswith("http://"))
        drain = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1)).submit(list, lines)
        stack.callback(service.kill)  # whatever happens: the lines above wait for its end
        wait_until(lambda: ready(url))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            sent = {"files": {"image": picture}}
            tasks = [pool.submit(client.post, "/v1/caption", **sent) for _ in range(16)]
            wait_until(lambda: figure(client, "gazetell_queue") == 16)
            service.send_signal(signal.SIGTERM)
            assert [task.result().status_code for task in tasks] == [200] * 16
        assert service.wait(timeout=60) in (0, -signal.SIGTERM)
        assert not any("Traceback" in line for line in drain.result())
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_a_batch_is_computed_with_the_threads_that_were_asked_for(models, picture):
    class Count(Work):
        def run(self, works, grid):
            return [torch.get_num_threads()] * len(works)

    before = torch.get_num_threads()
    engine = Engine([models["tell"]], ServeOptions(threads=before + 2), Monitor())
    work = Count(models["tell"])

    async def asked():
        return await engine.run(await engine.open(picture, work), work)

    engine.start()
    try:
        assert asyncio.run(asked()).result == before + 2
    finally:
        engine.close()
        assert torch.get_num_threads() == before
