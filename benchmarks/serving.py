"""How many requests the service answers, how fast, and whether it stays small, in one run.

    python benchmarks/serving.py PICTURES --model RUN [--model RUN] [--parts PART ...]

``load``: pictures posted by 1, 8, 32 and 128 clients at once over loopback, each sending its next
request when the last is answered: requests/s, and the time of a request (median, 95th and 99th
percentile) beside the ideal one, which is clients / throughput. Before and after, the same models
do the same work without a service, in batches of 32 files: ``offline``.

``memory``: the service's resident memory before, during and after ``--requests`` requests of all
kinds. ``garbage``: ``--requests`` times two damaged or random files; no reply may be 5xx, and the
service must answer on.

``replicas`` (needs the extra ``[cluster]``): captions/s of the local service with one thread, of
one replica and of two, each of one thread, 16 clients; then a replica is killed (SIGKILL) in the
middle of a load, and no request may fail; at last SIGINT, after which no process may be left.

Client and service share the machine; a client is a bare connection that sends ready-made bytes.
"""

import asyncio
import io
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any

QUESTION = "what colour is the picture?"
CLIENTS = (1, 8, 32, 128)


def request(path: str, picture: bytes, fields: dict[str, str]) -> bytes:
    """A POST with a form, as bytes."""
    parts = [
        f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    about = 'Content-Disposition: form-data; name="image"; filename="x"'
    parts.append(f"--frontier\r\n{about}\r\n\r\n".encode() + picture + b"\r\n--frontier--\r\n")
    body = b"".join(parts)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=frontier\r\n\r\n"
    )
    return head.encode() + body


async def send(port: int, requests: Iterator[bytes], until: Any, found: list[Any]) -> None:
    """One client: request after request on one connection, as long as ``until()`` says."""
    reader = writer = None
    while until():
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.perf_counter()
        try:
            writer.write(next(requests))
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            status = int(head.split()[1])
            await reader.readexactly(int(head.split("content-length:")[1].split()[0]))
        except (OSError, asyncio.IncompleteReadError):  # a lost connection counts as failed
            head, status = "connection: close", 0
        found.append((status, time.perf_counter() - began))
        if "connection: close" in head:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()


def attack(port: int, clients: int, requests: list[bytes], *, seconds: float = 0, count: int = 0):
    """(status, seconds) of each request that some clients sent in a time, or in all so many."""
    found: list[tuple[int, float]] = []
    rest = itertools.cycle(requests)
    until = time.perf_counter() + seconds
    left = itertools.count(count, -1)

    def more() -> bool:
        return next(left) > 0 if count else time.perf_counter() < until

    async def all_of_them() -> None:
        await asyncio.gather(*(send(port, rest, more, found) for _ in range(clients)))

    began = time.perf_counter()
    asyncio.run(all_of_them())
    return found, time.perf_counter() - began


@contextmanager
def service(options: Namespace, *more: str) -> Iterator[tuple[int, int]]:
    """A service in a process of its own; yields its port and process id."""
    import httpx

    models = [x for name in options.model for x in ("--model", name)]
    command = [sys.executable, "-m", "gazetell", "serve", "--port", "0", *models]
    command += ["--threads", str(options.threads), *more]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=quiet, text=True) as process:
        assert process.stderr is not None
        line = next(x for x in process.stderr if x.startswith("http://"))
        port = int(line.split()[0].rstrip("/").rsplit(":", 1)[1])
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=quiet)
        try:
            while process.poll() is None:
                with suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                        break
                time.sleep(0.1)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
            drain.terminate()


def kinds(options: Namespace) -> dict[str, Any]:
    """For each kind of request: its path, its fields, and the same work offline."""
    from gazetell.inference.load import load
    from gazetell.inference.predict import Answerer, Captioner, caption_many

    found: dict[str, Any] = {}
    for name in options.model:
        model = load(name)
        if isinstance(model, Captioner) and "caption" not in found:

            def tell(pictures: list[bytes], model: Captioner = model) -> None:
                for _ in caption_many(model, pictures, batch=32):
                    pass

            found["caption"] = ("/v1/caption", {}, tell)
        elif isinstance(model, Answerer) and "answer" not in found:

            def ask(pictures: list[bytes], model: Answerer = model) -> None:
                import torch

                from gazetell.models.encoders import Grid

                for begin in range(0, len(pictures), 32):
                    encodings = model.encode_all(pictures[begin : begin + 32])
                    grid = Grid.join([encoding.grid for encoding in encodings])
                    model.answer(grid, [QUESTION] * len(encodings), torch.arange(len(encodings)))

            found["answer"] = ("/v1/answer", {"question": QUESTION}, ask)
    return found


def offline(work: Any, pictures: list[bytes], seconds: float) -> float:
    """Pictures a second without a service."""
    work(pictures[:32])
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work(pictures)
        done += len(pictures)
    return done / (time.perf_counter() - began)


def measure_load(options: Namespace, pictures: list[bytes]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    works = kinds(options)
    before = {
        kind: offline(work, pictures, options.seconds) for kind, (_, _, work) in works.items()
    }
    with service(options) as (port, _):
        for kind, (path, fields, _) in works.items():
            requests = [request(path, picture, fields) for picture in pictures]
            for clients in CLIENTS:
                attack(port, clients, requests, seconds=1)
                found, took = attack(port, clients, requests, seconds=options.seconds)
                times = sorted(seconds for _, seconds in found)
                rate = len(found) / took
                at = {
                    p: times[min(len(times) - 1, int(p / 100 * len(times)))] for p in (50, 95, 99)
                }
                table[f"{kind}, {clients} clients"] = {
                    "rate": rate,
                    "ideal": clients / rate,
                    **{f"p{p}": seconds for p, seconds in at.items()},
                    "failed": sum(status != 200 for status, _ in found),
                }
    for kind, (_, _, work) in works.items():
        rates = [before[kind], offline(work, pictures, options.seconds)]
        table[f"{kind}, offline"] = {"rate": statistics.mean(rates), "rates": rates}
        print(f"{kind}, offline: {statistics.mean(rates):.1f} pictures/s")
        for clients in CLIENTS:
            row = table[f"{kind}, {clients} clients"]
            row["share"] = row["rate"] / statistics.mean(rates)
            ms = {p: round(1000 * row[p]) for p in ("p50", "p95", "p99")}
            print(
                f"{kind}, {clients:3} clients: {row['rate']:.1f}/s "
                f"({row['share']:.2f} of offline), {row['failed']} failed, ms: {ms} "
                f"(p99 {row['p99'] / row['ideal']:.2f} times the ideal)"
            )
    return table


def memory_of(process: int) -> float:
    """Resident MiB."""
    text = Path(f"/proc/{process}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_memory(options: Namespace, pictures: list[bytes]) -> dict[str, Any]:
    requests = [
        request(path, picture, fields)
        for picture in pictures
        for path, fields in (
            ("/v1/caption", {"gaze": "false"}),
            ("/v1/answer", {"question": QUESTION}),
            ("/v1/look", {}),
        )
    ]
    with service(options) as (port, process):
        kept = [memory_of(process)]
        seen: Counter[int] = Counter()
        for _ in range(5):
            found, _ = attack(port, 16, requests, count=options.requests // 5)
            seen.update(status for status, _ in found)
            kept.append(memory_of(process))
    print(f"MiB before and after each fifth of {options.requests}: {[round(x) for x in kept]}")
    print(f"statuses: {dict(seen)}")
    return {"mib": kept, "statuses": dict(seen)}


def garbage(count: int, pictures: list[bytes], seed: int) -> Iterator[bytes]:
    """Damaged picture files of several formats, and random bytes."""
    from PIL import Image

    chance, formats = random.Random(seed), itertools.cycle(("JPEG", "BMP", "TIFF", "WEBP"))
    for picture in tuple(pictures):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(picture)).convert("RGB").save(buffer, next(formats))
        pictures = [*pictures, buffer.getvalue()]
    for _ in range(count):
        content = bytearray(chance.choice(pictures))
        if chance.random() < 0.2:
            content = bytearray(chance.randbytes(chance.randrange(2000)))
        for _ in range(chance.randrange(1, 30)):
            place = chance.randrange(len(content) + 1)
            content[place : place + chance.randrange(40)] = chance.randbytes(chance.randrange(40))
        yield bytes(content)


def measure_garbage(options: Namespace, pictures: list[bytes]) -> dict[str, Any]:
    files = garbage(2 * options.requests, pictures, options.seed)
    requests = [request("/v1/caption", content, {}) for content in files]
    with service(options) as (port, process):
        before = memory_of(process)
        found, _ = attack(port, 16, requests, count=len(requests))
        after = memory_of(process)
        good, _ = attack(port, 1, [request("/v1/caption", pictures[0], {})], count=1)
    seen = Counter(status for status, _ in found)
    print(f"{len(requests)} damaged files: {dict(seen)}; MiB {before:.0f} to {after:.0f}")
    if any(status >= 500 or not status for status in seen) or good[0][0] != 200:
        raise SystemExit("the service failed")
    return {"statuses": dict(seen), "mib": [before, after]}


def children(process: int) -> dict[int, str]:
    """What a process has started, and what that has: ids and command lines."""
    table = subprocess.check_output(["ps", "-e", "-o", "pid=,ppid=,args="], text=True)
    rows = [line.split(None, 2) for line in table.splitlines()]
    found = {str(process): ""}
    while more := {pid: args for pid, up, args in rows if up in found and pid not in found}:
        found |= more
    return {int(pid): args for pid, args in found.items() if args}


def measure_replicas(options: Namespace, pictures: list[bytes]) -> dict[str, Any]:
    requests = [request("/v1/caption", picture, {"gaze": "false"}) for picture in pictures]
    options.threads = 1
    table: dict[str, Any] = {}
    engines = {"local": (), "1 replica": ("--engine", "ray"), "2 replicas": ("--engine", "ray")}
    for name, more in engines.items():
        more = (*more, "--replicas", name[0]) if more else more
        with service(options, *more) as (port, process):
            attack(port, 16, requests, seconds=2)
            found, took = attack(port, 16, requests, seconds=options.seconds)
            rate, failed = len(found) / took, sum(status != 200 for status, _ in found)
            table[name] = {"rate": rate, "failed": failed}
            print(f"captions, {name}: {rate:.1f}/s, {failed} failed")
            if name != "2 replicas":
                continue
            started = children(process)
            victim = next(pid for pid, args in started.items() if ":Replica" in args)
            Timer(options.seconds / 2, os.kill, (victim, signal.SIGKILL)).start()
            found, _ = attack(port, 16, requests, seconds=options.seconds)
            seen, slowest = Counter(status for status, _ in found), max(took for _, took in found)
            print(f"a replica killed: {dict(seen)}, the slowest after {slowest:.1f} s")
            started |= children(process)
    time.sleep(2)
    left = [args for pid, args in started.items() if Path(f"/proc/{pid}").exists()]
    print(f"processes left after the end: {len(left)} of {len(started)}")
    if set(seen) != {200} or left:
        raise SystemExit(f"requests were lost, or processes left: {left}")
    return table | {"killed": {"statuses": dict(seen), "slowest": slowest}}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, help="a folder")
    parser.add_argument("--model", action="append", required=True)
    parts = {"load": measure_load, "memory": measure_memory, "garbage": measure_garbage}
    usual = list(parts)
    parts["replicas"] = measure_replicas
    parser.add_argument("--parts", nargs="+", choices=parts, default=usual)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="of the service, see its help")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    options = parser.parse_args()
    names = sorted(p for p in options.pictures.iterdir() if p.suffix in (".png", ".jpg"))[:256]
    pictures = [name.read_bytes() for name in names]
    found = {part: parts[part](options, pictures) for part in options.parts}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
