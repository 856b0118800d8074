"""Which device and number format to compute in, and why: one choice for all of gazetell."""

import logging
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from ..errors import DEVICES, UsageError, check_device, check_precision


class Precision(NamedTuple):
    """A number format for matrix products and the reason for it."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """``bf16`` or ``fp32``."""
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """Run matrix products and convolutions in this format."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    def converted(self, network: nn.Module) -> nn.Module:
        """A network for inference whose linear layers have their weights in this format.

        Autocast alone converts float32 weights in each step of decoding anew. The results are the
        same. In bfloat16 it is a copy: the network keeps its weights.
        """
        if self.dtype == torch.float32:
            return network
        copied = deepcopy(network)
        for module in copied.modules():
            if isinstance(module, nn.Linear):
                module.to(self.dtype)
        return copied


def choose(device: str = "auto", precision: str = "auto") -> tuple[torch.device, Precision]:
    """Device and precision of a run; what was left to ``auto`` is said once, in one line."""
    where = choose_device(device)
    chosen = choose_precision(where, precision)
    if "auto" in (device, precision):
        _say_once(f"computing on {where} in {chosen.name} ({chosen.reason})")
    return where, chosen


@cache
def _say_once(line: str) -> None:
    """The same for several models of a process is said for the first."""
    logging.getLogger(__name__).warning(line)


def choose_device(name: str = "auto") -> torch.device:
    """The device to compute on: ``auto`` is a GPU where there is one, else the CPU.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        UsageError: another name; a device that is not there, with the reason.
    """
    check_device(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if missing := _missing(device):
            raise RuntimeError(missing)
        torch.empty(1, device=device)
    # torch raises AssertionError for a device that it was not built for.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else "no reason given"
        raise UsageError(f"device {name!r} cannot be used: {reason}; {DEVICES}") from error
    return device


def _missing(device: torch.device) -> str:
    """Why a GPU is not there; empty where it may be."""
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.backends.cuda.is_built():
            return f"torch {torch.__version__} is built without CUDA"
        if not count:
            return "no GPU is found (is there one, and its driver? nvidia-smi tells)"
        here = f"{count} GPUs, cuda:0 to cuda:{count - 1}" if count > 1 else "one GPU, cuda:0"
        return f"this machine has {here}" if (device.index or 0) >= count else ""
    if device.type == "mps" and not torch.backends.mps.is_built():
        return f"torch {torch.__version__} is built without MPS, which macOS alone has"
    no_gpu = device.type == "mps" and not torch.backends.mps.is_available()
    return "this Mac has no GPU that MPS can use" if no_gpu else ""


def choose_precision(device: torch.device, name: str = "auto") -> Precision:
    """``auto`` is bfloat16 where the hardware multiplies it faster than float32, else float32.

    Raises:
        UsageError: a name other than auto, bf16 and fp32.
    """
    check_precision(name)
    if name == "bf16":
        return Precision(torch.bfloat16, "asked for")
    if name == "fp32":
        return Precision(torch.float32, "asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(torch.bfloat16, "the GPU multiplies bf16")
        return Precision(torch.float32, "the GPU does not multiply bf16")
    if device.type != "cpu":
        return Precision(torch.float32, f"bf16 is not tested on {device.type}")
    for flag in ("amx_bf16", "avx512_bf16"):
        if torch.backends.mkldnn.is_available() and flag in _cpu_flags():
            return Precision(torch.bfloat16, f"the CPU has {flag}")
    return Precision(torch.float32, "the CPU has neither amx_bf16 nor avx512_bf16")


def _cpu_flags() -> set[str]:
    """The CPU's feature flags (Linux on x86; none known elsewhere)."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            lines = (line for line in file if line.startswith("flags"))
            return set(next(lines, "").split())
    except OSError:
        return set()
