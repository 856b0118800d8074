"""Device and number format: what is asked for, what the hardware has, what is refused."""

import logging
import re

import pytest
import torch

from gazetell.errors import UsageError
from gazetell.models import precision
from gazetell.models.precision import choose, choose_device, choose_precision

CPU = torch.device("cpu")


def test_devices():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "CPU", "cuda:", "cuda:-1", "mps:x"])
def test_what_is_no_device_is_told_with_what_is(name):
    with pytest.raises(UsageError) as error:
        choose_device(name)
    assert str(error.value) == f"device {name!r}: expected auto, cpu, cuda, cuda:N or mps"


@pytest.mark.parametrize(
    ("name", "built", "gpus", "reason"),
    [
        ("cuda", False, 0, f"torch {torch.__version__} is built without CUDA"),
        ("cuda", True, 0, "no GPU is found (is there one, and its driver? nvidia-smi tells)"),
        ("cuda:1", True, 1, "this machine has one GPU, cuda:0"),
        ("cuda:7", True, 4, "this machine has 4 GPUs, cuda:0 to cuda:3"),
        ("mps", False, 0, f"torch {torch.__version__} is built without MPS, which macOS alone has"),
        ("mps", True, 0, "this Mac has no GPU that MPS can use"),
    ],
)
def test_why_a_gpu_cannot_be_used(name, built, gpus, reason, monkeypatch):
    for module in (torch.backends.cuda, torch.backends.mps):
        monkeypatch.setattr(module, "is_built", lambda: built)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UsageError, match=re.escape(f"device '{name}' cannot be used: {reason};")):
        choose_device(name)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [({"amx_bf16"}, "bf16"), ({"avx512_bf16", "avx"}, "bf16"), ({"avx"}, "fp32"), (set(), "fp32")],
)
def test_the_cpu_tells_its_format(monkeypatch, flags, dtype):
    monkeypatch.setattr(precision, "_cpu_flags", lambda: flags)
    chosen = choose_precision(CPU)
    assert chosen.name == dtype
    assert "CPU" in chosen.reason


def test_what_is_asked_for_wins():
    assert choose_precision(CPU, "bf16").dtype == torch.bfloat16
    assert choose_precision(CPU, "fp32").dtype == torch.float32
    with pytest.raises(UsageError, match="precision 'fp16'"):
        choose_precision(CPU, "fp16")


def test_what_was_left_open_is_told_once(caplog):
    precision._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert choose("cpu", "fp32") == (CPU, choose_precision(CPU, "fp32"))
        assert not caplog.records
        for _ in range(2):
            choose("cpu", "auto")
        assert [record.getMessage() for record in caplog.records] == [
            "computing on cpu in fp32 (the CPU has neither amx_bf16 nor avx512_bf16)"
        ]


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_matrix_products_run_in_it(name, dtype):
    with choose_precision(CPU, name).autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
