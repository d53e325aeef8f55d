"""Device, precision, seeds and allocator settings of a run."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import vaezoo
from vaezoo.errors import OptionError
from vaezoo.runtime import available_cpus

_KEEP = (1 << 31) - 1
"""Bytes: freed buffers up to this size stay in the process, and as much at the end of its heap."""
_HUGE = 3 << 29
"""Bytes of the heap in huge pages: less than _KEEP, or they would be returned to the system."""
_HUGE_PAGE = 1 << 21
_MADV_HUGEPAGE = 14

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Runtime:
    """What a run computes with: its device and precision, and this process's rank.

    device: a resolved device, with an index on GPUs. precision: fp32, tf32 or bf16.
    """

    device: torch.device
    precision: str
    rank: int = 0
    world_size: int = 1


def resolve_device(name: str) -> torch.device:
    """The device of this name; `auto` prefers a GPU. OptionError if it does not exist.

    It also limits torch's threads to the CPUs of this process.
    """
    set_threads(None)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(f"--device {name!r} is no device: auto, cpu, cuda, cuda:0, mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise OptionError(
                f"--device {name}: this machine has no CUDA device; give --device cpu, or auto"
            )
        index: int | None = device.index
        if index is not None and index >= count:
            raise OptionError(f"--device {name}: there are {count} GPUs, numbered from 0")
        if index is None:
            device = torch.device("cuda", torch.cuda.current_device())
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise OptionError("--device mps: this machine has no Apple GPU; give --device cpu, or auto")
    elif device.type not in ("cpu", "mps"):
        raise OptionError(f"--device {name}: vaezoo runs on cpu, cuda and mps")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """The precision of this name: fp32, tf32 or bf16. OptionError if the device lacks it.

    auto: tf32 on GPUs that have it; bf16 on CPUs with AMX, where a step took 0.6 of its time in
    fp32 and trained as well; fp32 elsewhere. Without AMX bf16 was 7 to 40 times slower.
    """
    tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "auto" and device.type == "cpu":
        return "bf16" if "amx_bf16" in _cpu_fact("flags").split() else "fp32"
    if name == "auto":
        return "tf32" if tf32 else "fp32"
    if name == "tf32" and not tf32:
        raise OptionError(f"--precision tf32: {device} does not have it; give fp32")
    return name


@contextlib.contextmanager
def precision_context(precision: str, deterministic: bool) -> Iterator[None]:
    """Set torch's global switches for a run, and restore them afterwards.

    Distributions do not validate their arguments meanwhile: the host would wait for each check.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = precision != "fp32"
    cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
    try:
        with no_validate_args():
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


@contextlib.contextmanager
def no_validate_args() -> Iterator[None]:
    """Turn off the validation of arguments in torch.distributions.

    validate_args=False is not enough: OneHotCategorical makes a Categorical without it.
    """
    before: bool = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of a forward pass; it does nothing unless the precision is bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def set_threads(threads: int | None) -> None:
    """Set torch's CPU threads; None: torch's own number, at most the CPUs of this process."""
    torch.set_num_threads(threads or min(torch.get_num_threads(), available_cpus()))


@functools.cache
def tune_malloc() -> bool:
    """Make glibc reuse large freed buffers, and put them in huge pages. False without glibc.

    Activations are allocated and freed at every step. If they are unmapped each time, page faults
    take a quarter to a third of a CPU step (259 images per second instead of 324), and half of the
    time of a decoder alone. Pages of 4 KiB cost another tenth (363 instead of 402). Memory is not
    allocated before it is used. It holds for the process, and is done once.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(mmap_threshold, _KEEP) and libc.mallopt(trim_threshold, _KEEP)):
        return False
    # Mark addresses at the end of the heap, which it has not used yet.
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = libc.malloc(_HUGE)
    if start is not None:  # else there is a limit on addresses, and the pages stay small
        first = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        # It fails on a system without huge pages, and changes nothing.
        libc.madvise(first, start + _HUGE - first, _MADV_HUGEPAGE)
        libc.free(start)
    return True


def move_module(module: ModuleT, device: torch.device) -> ModuleT:
    """Move a module to a device, the weights of 2-D convolutions as channels-last."""
    module.to(device)
    # Module.to(memory_format=) refuses the weights of 3-D convolutions.
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return module


def device_name(device: torch.device) -> str:
    """The name of the device for reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        model = _cpu_fact("model name") or platform.processor() or platform.machine()
        return f"cpu ({model}, {torch.get_num_threads()} threads)"
    return str(device)


@functools.cache
def _cpu_fact(name: str) -> str:
    """A line of /proc/cpuinfo, of the first core; empty where there is none."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


NumberT = TypeVar("NumberT", int, Tensor)


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards in the mode that it was in."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Noise that follows from `seed`; the generators of the CPU and of `device` are put back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def mix_bits(x: NumberT) -> NumberT:
    """Hash whole numbers to 32 well-mixed bits, on any device (multipliers: C. Wellons)."""
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def derive_seed(seed: int, rank: int, step: int) -> int:
    """The seed of what a rank draws in a step; it differs in every rank and step."""
    return mix_bits(mix_bits(mix_bits(seed) + rank) + step)


def versions() -> dict[str, str]:
    """The versions of the packages that a run's numbers may depend on."""
    return {
        "vaezoo": vaezoo.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,  # with its build, which the version of the package omits
        **{name: version(name) for name in ("torchvision", "numpy", "safetensors")},
    }
