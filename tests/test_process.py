"""Freed memory stays in the process on Linux, so that tensors are not cleared page by page."""

import os
import platform
import subprocess
import sys

import pytest

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
