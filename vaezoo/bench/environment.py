"""What a report's numbers were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Any

import torch

from vaezoo.bench.peaks import copy_rate, gemm_rate, specified
from vaezoo.runs.train import versions
from vaezoo.runtime.device import device_name


def describe(device: torch.device, precisions: list[str]) -> dict[str, Any]:
    """The machine and its measured ceilings: FLOP/s by precision, bytes/s of copying."""
    peaks = {precision: specified(device, precision) for precision in precisions}
    return {
        "device": device_name(device),
        "device_type": device.type,
        "driver": _driver(device),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "layout": "channels-last",
        "versions": versions(),
        "gemm_flops_per_second": {p: gemm_rate(device, p) for p in precisions},
        "copy_bytes_per_second": copy_rate(device),
        "peak_flops_per_second": {p: peak[0] if peak else None for p, peak in peaks.items()},
        "peak_sources": sorted({peak[1] for peak in peaks.values() if peak}),
    }


def _driver(device: torch.device) -> str | None:
    if device.type != "cuda":
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.split("\n")[0].strip() or None
