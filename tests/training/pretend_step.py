"""Training steps of models on the CPU and on the device `pretend`; prints JSON for each model.

Arguments: names of models. A process of its own, because a device is registered once.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from pretend_device import DEVICE, PretendDevice
from vaezoo.data.base import Batch
from vaezoo.losses.base import StepContext, loss_of
from vaezoo.plugins.registry import registry
from vaezoo.runtime.device import Runtime, move_module, precision_context
from vaezoo.testing.subjects import CPU, ModelWithLoss
from vaezoo.training.train_step import TrainStep

_STEPS = 2


def main() -> None:
    for name in sys.argv[1:]:
        pair = ModelWithLoss(registry().get("model", name))
        with precision_context("fp32", deterministic=True):
            expected = steps(pair, CPU)
            with PretendDevice():
                found = steps(pair, DEVICE)
        print(json.dumps({"model": name, "expected": expected, "found": found}), flush=True)


def steps(pair: ModelWithLoss, device: torch.device) -> dict[str, Any]:
    """The terms of the last step, and the copies in all steps."""
    model, real = pair.build(), pair.batch()
    loss = loss_of(model)
    for module in (model, loss):
        move_module(module, device)
    batch = Batch(real.x.to(device), None if real.y is None else real.y.to(device))
    runtime = Runtime(device, "fp32")
    update = TrainStep(model, loss, pair.train_options, runtime, _STEPS, note=lambda text: None)
    numbers = torch.arange(_STEPS).to(device)
    before = PretendDevice.copies
    for step in range(_STEPS):
        torch.manual_seed(step)
        terms = update(batch, StepContext(numbers[step], _STEPS, len(real.x)), step)
    copies = PretendDevice.copies - before
    return {"terms": terms.tolist(), "copies": copies}


if __name__ == "__main__":
    main()
