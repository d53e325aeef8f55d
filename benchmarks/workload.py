"""The tutorial's network in training, as `vaezoo bench` has it."""

from __future__ import annotations

import torch

from vaezoo.bench.job import Case, Job
from vaezoo.bench.worker import Workload


def training_workload(
    device: torch.device,
    *,
    batch_size: int,
    precision: str,
    model: str = "vanilla",
    likelihood: str | None = None,
    compile: str = "off",
) -> Workload:
    """A step of the model on 64×64 colour images, on this device. likelihood: as the model's."""
    case = Case(mode="train", batch_size=batch_size, precision=precision, compile=compile)
    job = Job(
        model=model,
        names={"likelihood": likelihood},
        options={},
        shape=(3, 64, 64),
        device=str(device),
        cases=(case,),
        windows=5,
        seconds=0.5,
        end_to_end=False,
        largest=False,
        gemm={},
        copy=1.0,
    )
    return Workload(job, case, device)
