"""What a machine can do at most: by specification where it is known, and as measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from vaezoo.bench.timing import synchronise

# Dense rates in FLOP/s, memory in bytes/s. A device that is not here has no peak: no guesses.
_H100 = "NVIDIA H100 Tensor Core GPU datasheet, SXM5"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet, SXM5"
_A100 = "NVIDIA A100 Tensor Core GPU datasheet, SXM4 80 GB"
PEAKS: dict[str, tuple[dict[str, float], float, str]] = {
    "NVIDIA H200": ({"fp32": 67e12, "tf32": 494.7e12, "bf16": 989.4e12}, 4.8e12, _H200),
    "NVIDIA H100 80GB HBM3": ({"fp32": 67e12, "tf32": 494.7e12, "bf16": 989.4e12}, 3.35e12, _H100),
    "NVIDIA A100-SXM4-80GB": ({"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12}, 2.039e12, _A100),
}

_SECONDS = 0.3


def specified(device: torch.device, precision: str) -> tuple[float, str] | None:
    """FLOP/s by the maker's specification, with its source; None where we do not know it."""
    if device.type != "cuda" or torch.cuda.get_device_name(device) not in PEAKS:
        return None
    rates, _, source = PEAKS[torch.cuda.get_device_name(device)]
    return (rates[precision], source) if precision in rates else None


def gemm_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of the best of a few square matrix products, measured now."""
    sizes = (2048, 4096, 8192) if device.type == "cuda" else (512, 1024, 2048)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for size in sizes:
        a = torch.randn(size, size, device=device, dtype=dtype)
        b = torch.randn(size, size, device=device, dtype=dtype)
        out = torch.empty_like(a)
        best = max(best, 2 * size**3 / _fastest(_product(a, b, out), device))
    return best


def copy_rate(device: torch.device) -> float:
    """Bytes a second read and written by copying a tensor too large for any cache."""
    source = torch.empty(1 << (28 if device.type == "cuda" else 25), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source), device)


def _product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.mm(a, b, out=out)


def _fastest(step: Callable[[], object], device: torch.device) -> float:
    """The shortest time of a step: a ceiling is what the machine can do, not what it did."""
    step()
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < _SECONDS:
        synchronise(device)
        start = time.perf_counter()
        for _ in range(3):
            step()
        synchronise(device)
        best = min(best, (time.perf_counter() - start) / 3)
    return best
