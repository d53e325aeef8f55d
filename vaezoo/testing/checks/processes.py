"""Two processes with half a batch each do what one process does with the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from vaezoo.options import to_dict
from vaezoo.registry import registry, subprocess_environment
from vaezoo.testing.check import Broken, Excused, check
from vaezoo.testing.pair import Pair
from vaezoo.testing.shard import Shard
from vaezoo.training.checkpoint import load_weights

_SECONDS = 300


@check(
    "ask whether there is a process group when it is needed; leave gradients to the trainer",
    slow=True,
)
def processes(pair: Pair) -> None:
    """The mean gradient of two gloo processes is that of one"""
    for spec in (pair.model_spec, pair.loss_spec):
        if spec not in registry().specs(spec.kind):
            raise Excused("another process can only be told of what has a registered name")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run_both(pair, folder)
        together = load_weights(folder / "gradients.safetensors")
    apart = _one_after_the_other(pair)
    for parameter, gradient in apart.items():
        if not torch.allclose(together[parameter], gradient, rtol=1e-3, atol=1e-5):
            raise Broken(f"the gradient of {parameter} is another one in two processes")


def _run_both(pair: Pair, folder: Path) -> None:
    job = {
        "model": pair.model_spec.name,
        "loss": pair.loss_spec.name,
        "options": {**to_dict(pair.model_options), **to_dict(pair.loss_options)},
        "folder": str(folder),
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "vaezoo.testing.shard", json.dumps(job), str(rank)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **subprocess_environment(), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=_SECONDS)[1] for process in running]
    except subprocess.TimeoutExpired:
        raise Broken(f"two processes are not done after {_SECONDS} s: one waits") from None
    finally:
        for process in running:
            process.kill()
    for process, words in zip(running, said, strict=True):
        if process.returncode:
            last = words.strip().splitlines() or [f"exit code {process.returncode}"]
            raise Broken(f"a process ended: {last[-1]}")


def _one_after_the_other(pair: Pair) -> dict[str, torch.Tensor]:
    """The mean of the gradients that the two shards give in one process."""
    shards = [Shard(pair, rank).gradients() for rank in range(2)]
    return {name: (shards[0][name] + shards[1][name]) / 2 for name in shards[0]}
