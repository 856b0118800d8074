"""Freed memory stays in the process on Linux; signals end it once; the time left is told."""

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from gazetell import process
from gazetell.errors import GazetellError
from gazetell.process import STOP, bar, begin_worker, interrupted_by, undisturbed, worker_errors

# 20 blocks of 16 MB, one after the other, once before it counts.
SCRIPT = """
import resource
from gazetell.process import keep_memory
keep_memory()
def use():
    for _ in range(20):
        {block}
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
TENSOR = "__import__('torch').ones(2**22)"
BYTES = "b'1' * 2**24"  # of the same heap, and there in no time
FAULTS = 20 * 2**24 // os.sysconf("SC_PAGE_SIZE")  # every page of every block


def faults(block, variables):
    clean = {key: x for key, x in os.environ.items() if not key.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT.format(block=block)]
    return int(subprocess.check_output(command, env=clean | variables))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_unless_a_variable_says_otherwise():
    assert faults(TENSOR, {}) < FAULTS / 20
    assert faults(BYTES, {}) < FAULTS / 20
    assert faults(BYTES, {"MALLOC_MMAP_THRESHOLD_": "65536"}) > FAULTS / 2


def test_the_time_that_is_left_is_told_once_it_is_known_then_once_a_minute(monkeypatch):
    """A picture a second; the first 100 were there before."""
    now, lines = [0.0], []
    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    with bar("features", False, lines.append) as update:
        for done in range(100, 6101):
            now[0] += 1
            update(done, 6100)
    assert lines[0] == "features: 103 of 6100, about 1.7 h left"
    assert lines[1] == "features: 163 of 6100, about 1.6 h left"
    assert len(lines) == 1 + (6000 - 3 - 1) // 60
    assert lines[-1] == "features: 6043 of 6100, about 57 s left"
    with bar("features", False) as update:
        update(1, 2)


# -- signals -----------------------------------------------------------------------------------


class Slow:
    """Hears a signal while Python deletes it: an exception there is lost."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def twice(done):
    """As timeout sends it."""
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.raise_signal(signal.SIGTERM)


def lost(done):
    Slow()
    time.sleep(10)


def late(done):
    with undisturbed():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("started")
    done.append("too late")


@pytest.mark.parametrize(("end", "expected"), [(twice, []), (lost, []), (late, ["started"])])
def test_sigterm_ends_a_block_as_ctrl_c_does(end, expected, capsys):
    """Once, though Python loses it where an object is deleted, and not in the middle of a start."""
    before, done = (signal.getsignal(signal.SIGTERM), sys.unraisablehook), []
    with pytest.raises(KeyboardInterrupt), interrupted_by(signal.SIGTERM):
        end(done)
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before
    assert done == expected
    assert capsys.readouterr().err == ""


def wait_as_worker(ready):
    begin_worker(0)
    ready.set()
    time.sleep(20)


@pytest.mark.parametrize("blocked", [True, False])
def test_a_worker_leaves_ctrl_c_to_its_parent_and_ends_quietly(blocked):
    """A traceback of it would stand in the output of pytest -s; an exit status would end all."""
    ready = multiprocessing.get_context("fork").Event()
    worker = multiprocessing.get_context("fork").Process(target=wait_as_worker, args=(ready,))
    if blocked:
        with undisturbed():
            worker.start()
    else:
        worker.start()
    assert ready.wait(20)
    for number in STOP:
        assert worker.is_alive()
        os.kill(worker.pid, number)
        time.sleep(0.05)
    worker.join(20)
    assert worker.exitcode == 0


def test_a_worker_that_was_killed_is_one_line():
    said = "DataLoader worker (pid 7) is killed by signal: Killed. "
    expected = (
        r"has ended \(DataLoader worker \(pid 7\) is .* Killed\); fewer --workers .*memory; go on"
    )
    with pytest.raises(GazetellError, match=expected), worker_errors("; go on"):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="shapes"), worker_errors():
        raise RuntimeError("shapes")
