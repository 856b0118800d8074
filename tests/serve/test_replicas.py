"""The service on replicas: what is lost is asked again, and all of it adds up and ends."""

import concurrent.futures
import os
import signal
import socket
import sys
import time

import httpx
import pytest
from service import figure, png, text

from gazetell.errors import UsageError
from gazetell.serve import replicas as cluster
from gazetell.serve.guard import ServeOptions

REPLICA = "ServeReplica:gazetell:Replica"


@pytest.fixture
def client(replicas):
    with httpx.Client(base_url=replicas.url, timeout=60) as client:
        yield client


def test_figures_add_up_over_replicas(client, picture):
    names = [
        'gazetell_requests_total{route="/v1/caption",status="200"}',
        'gazetell_requests_total{route="/v1/caption",status="422"}',
        'gazetell_problems_total{code="picture_unreadable"}',
        'gazetell_batch_size_sum{stage="caption"}',
        'gazetell_batch_size_sum{stage="encode"}',
    ]

    def figures():
        lines = dict(x.rsplit(" ", 1) for x in client.get("/metrics").text.splitlines())
        return [float(lines.get(name, 0)) for name in names]

    before, others = figures(), [png(20 + n, 30) for n in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sent = [{"files": {"image": image}} for image in [*others, b"none", b"none"]]
        replies = [pool.submit(client.post, "/v1/caption", **one) for one in sent]
        statuses = sorted(reply.result().status_code for reply in replies)
    assert statuses == [200] * 16 + [422] * 2
    assert [b - a for a, b in zip(before, figures(), strict=True)] == [16, 2, 2, 16, 16]
    assert figure(client, "gazetell_queue") == figure(client, "gazetell_upload_bytes") == 0


def test_a_replica_killed_under_load_loses_no_request(replicas, client, models, picture):
    """Half of the requests name a look, which every replica finds."""
    look = client.post("/v1/look", files={"image": picture}).json()["look"]
    large = png(1000, 999)  # takes a while to open
    expected = {models["tell"].caption(image).text for image in (picture, large)}
    (first, *others), ended = replicas.processes(REPLICA), time.monotonic() + 3
    assert others

    def ask(fields):
        told = []
        while time.monotonic() < ended:
            reply = client.post("/v1/caption", json={**fields, "gaze": False})
            told.append(reply.json()["captions"][0]["text"] if reply.status_code == 200 else reply)
        return told

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        fields = [{"look": look} if n % 2 else {"image": text(large)} for n in range(12)]
        tasks = [pool.submit(ask, one) for one in fields]
        time.sleep(1)
        os.kill(first, signal.SIGSTOP)  # what comes to it now waits there, and is lost with it
        time.sleep(0.3)
        os.kill(first, signal.SIGKILL)
        told = [one for task in tasks for one in task.result()]
    assert len(told) > len(tasks)
    assert set(told) == expected
    assert "a replica was lost" in replicas.log.read_text()  # and another one was asked
    assert first not in replicas.processes(REPLICA)


@pytest.mark.parametrize("number", ["0", "4:1", "0:2", "x", "1:", "1:2:3", "-1", "1.5"])
def test_numbers_of_replicas_that_make_no_sense(number):
    with pytest.raises(UsageError, match=f"--replicas {number}: expected N or MIN:MAX"):
        cluster.bounds(number)
    assert cluster.bounds("3") == (3, 3)
    assert cluster.bounds("1:4") == (1, 4)


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs ray .*pip install .*\(extra cluster\)"):
        cluster.serve([], ServeOptions(port=0), (1, 1))


def test_a_cluster_that_cannot_be_reached():
    pytest.importorskip("ray.serve", reason="needs the extra [cluster]")
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    for address, told in (
        (closed, "cannot be reached"),
        ("ray://host:1", "Ray's client cannot run this"),
        ("host", "expected auto or host:port"),
    ):
        with pytest.raises(UsageError, match=f"--address {address}: {told}"):
            # Before any model is looked for.
            cluster.serve(["nowhere"], ServeOptions(port=0), (1, 1), address)


def test_options_of_the_other_engine():
    from gazetell.cli import app

    for option, value in (("--replicas", "2"), ("--address", "auto")):
        with pytest.raises(UsageError, match=f"{option} {value}: has no effect without --engine"):
            app(["serve", option, value], exit_on_error=False, print_error=False)
