"""Freed memory stays in the process on Linux; the time that work will take is told as it goes."""

import os
import platform
import subprocess
import sys

import pytest

from gazetell import process
from gazetell.process import bar

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
