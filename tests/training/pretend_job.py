"""A whole training on the CPU, and the same on the device `pretend`, stopped and resumed there.

Arguments: a folder for the runs. A process of its own, because a device is registered once.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import vaezoo
from pretend_device import DEVICE, PretendDevice
from small_jobs import SMALL_JOB, StopAfter
from vaezoo.errors import RunStopped
from vaezoo.runtime import device as runtime_device

JOB: dict[str, Any] = {
    **SMALL_JOB,
    "examples": 60,
    "batch_size": 8,
    "precision": "fp32",
    "ema": 0.9,
    "grad_clip": 1.0,
    "on_nonfinite": "skip",
    "weight_decay": 0.1,
    "accumulate": 2,
    "augment": ["flip", "crop"],
}

_STOP = 3


def main() -> None:
    out = Path(sys.argv[1])
    vaezoo.train("vanilla", **{**JOB, "out": str(out / "cpu")})
    honest = runtime_device.resolve_device

    def resolve(name: str) -> torch.device:
        return DEVICE if name.startswith("pretend") else honest(name)

    for name, module in list(sys.modules.items()):
        if name.startswith("vaezoo.") and hasattr(module, "resolve_device"):
            module.resolve_device = resolve
    with PretendDevice():
        job = {**JOB, "device": "pretend", "out": str(out / "pretend")}
        with suppress(RunStopped):
            vaezoo.train("vanilla", **job, callback=StopAfter(_STOP))
        vaezoo.train("vanilla", **job, auto_resume=True)


if __name__ == "__main__":
    main()
