"""Freed memory stays in the process on Linux; the time that work will take is told as it goes."""

import os
import platform
import subprocess
import sys

import pytest

from gazetell import process
from gazetell.process import bar

# 20 tensors of 16 MB, one after the other; 256 MB are touched once, as in any program.
SCRIPT = """
import resource
import torch
from gazetell.process import keep_memory
keep_memory()
def use():
    for _ in range(20):
        torch.ones(2**22)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
FAULTS = 20 * 2**24 // os.sysconf("SC_PAGE_SIZE")  # every page of every tensor


def faults(variables):
    clean = {key: x for key, x in os.environ.items() if not key.startswith("MALLOC_")}
    return int(subprocess.check_output([sys.executable, "-c", SCRIPT], env=clean | variables))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_unless_a_variable_says_otherwise():
    assert faults({}) < FAULTS / 20
    given_back = {"MALLOC_MMAP_THRESHOLD_": "65536"}
    assert faults(given_back) > FAULTS / 2


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
