"""One of two processes that share a batch: `python -m vaezoo.testing.shard JOB RANK`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vaezoo.data.batch import Batch
from vaezoo.evaluation.modes import seeded
from vaezoo.losses.base import Phase
from vaezoo.testing.pair import CPU, Pair, loss_of
from vaezoo.training.checkpoint import save_weights

WORLD = 2


class Shard:
    """A part of a batch, the model that it is for, and noise of its own."""

    def __init__(self, pair: Pair, rank: int) -> None:
        self.pair, self.rank = pair, rank
        self.model = pair.build()
        x, y = pair.batch(WORLD * len(pair.batch().x))
        self.batch = Batch(x.chunk(WORLD)[rank], None if y is None else y.chunk(WORLD)[rank])

    def gradients(self, shared: bool = False) -> dict[str, Tensor]:
        """The gradient of each parameter in each phase; the mean over the processes if shared."""
        found = {}
        loss = loss_of(self.model)
        named = [*self.model.named_parameters(), *loss.named_parameters("loss")]
        for phase in loss.phases(self.model):
            step: nn.Module = _Step(self, phase)
            if shared:
                step = DistributedDataParallel(step, find_unused_parameters=True)
            with seeded(self.rank, CPU):
                objective: Tensor = step()
            objective.backward(inputs=list(phase.parameters))
            for name, parameter in named:
                if parameter.grad is not None:
                    found[f"{name} in phase {phase.name}"] = parameter.grad
                    parameter.grad = None
        return found


class _Step(nn.Module):
    """A phase as a module that has its parameters, and its objective for a forward pass."""

    def __init__(self, shard: Shard, phase: Phase) -> None:
        super().__init__()
        self.own = nn.ParameterList(phase.parameters)
        self.objective = phase.objective
        object.__setattr__(self, "shard", shard)

    def forward(self) -> Tensor:
        shard: Shard = self.shard  # type: ignore[assignment]
        return self.objective(shard.model, shard.batch, shard.pair.context()).objective


def main() -> None:
    job, rank = json.loads(sys.argv[1]), int(sys.argv[2])
    folder = Path(job["folder"])
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD
    )
    pair = Pair(job["model"], job["loss"], options=job["options"])
    gradients = Shard(pair, rank).gradients(shared=True)
    if rank == 0:
        save_weights(folder / "gradients.safetensors", gradients)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
