"""One process of a training job, for test_training_jobs.py: `training_job.py FOLDER RANK COUNT`.

The same processes do all work that needs several, one thing after the other, because starting a
process takes longer than all of it. Each process writes its results as JSON.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

import vaezoo
from small_jobs import StopAfter
from vaezoo.data.loader import BatchLoader
from vaezoo.distributed import (
    all_gather,
    all_reduce,
    is_sharded,
    local_chunk,
    local_only,
    rank,
    world_size,
)
from vaezoo.distributed.fsdp import apply_fsdp
from vaezoo.distributed.launch import all_reduce_max, gather_objects, on_rank0_broadcast
from vaezoo.errors import VaezooError
from vaezoo.losses.base import StepContext, evaluate_loss
from vaezoo.models.base import BaseVAE
from vaezoo.runs import train as training
from vaezoo.runs.train import resume_run
from vaezoo.training.loggers import ProgressCallback
from vaezoo.training.optimizers import OPTIMIZERS
from vaezoo_vanilla.loss import ELBOLoss

JOB: dict[str, Any] = {
    "data": "sprites",
    "examples": 120,
    "test": 25,
    "image_size": 16,
    "network": "mlp",
    "hidden": (32,),
    "latent_dim": 4,
    "batch_size": 12,
    "epochs": 3,
    "log_every": 3,
    "device": "cpu",
}  # 95 training examples: 7 steps an epoch, 21 in all


NORMED: dict[str, Any] = {"network": "conv", "hidden": (8, 8), "epochs": None, "steps": 3}
"""Layers with batch norm, for few steps, because rounding errors grow with the steps."""

WIDE: dict[str, Any] = {"hidden": (160,), "grad_clip": 2.0}
"""Layers that are large enough to be sharded."""

OPTIONS: dict[str, Any] = {
    **{"optimizer": "adamw", "weight_decay": 0.1, "lr_warmup": 4, "schedule": "cosine"},
    **{"accumulate": 2, "ema": 0.9, "skip_grad_norm": 220.0, "augment": ("flip", "crop")},
}
"""All training options at once; some steps are skipped."""
OPTIONS_WIDE: dict[str, Any] = {"skip_grad_norm": 320.0, "on_nonfinite": "skip"}

_FEW: dict[str, Any] = {
    **{"network": "conv", "hidden": (32, 64, 128)},
    **{"epochs": None, "steps": 5, "log_every": 1},
}
LARGE: dict[str, dict[str, Any]] = {
    "vamp_prior": {**_FEW, "pseudo_inputs": 40},
    "vae_gan": {**_FEW, "discriminator_hidden": (32, 128)},
}
"""Small versions of the model with the most parameters, and of one with three phases."""


DRAW = training._draw_pictures
DRAWN = ("same", "whole", "sharded")
"""The runs whose pictures are drawn, which takes longer than to train them."""


def draw_some(trainer: Any, *args: Any) -> None:
    if trainer.folder.path.name in DRAWN:
        DRAW(trainer, *args)


def said(work: Callable[[], Any]) -> str:
    """The type and the message of the error that ends the work."""
    try:
        work()
    except VaezooError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def train(model: str, out: Path, **options: Any) -> Any:
    return vaezoo.train(model, out=out, **{**JOB, **options})


def write_table(path: Path) -> None:
    """Two columns of very different ranges."""
    values = np.random.default_rng(0).standard_normal((120, 2))
    np.savez(path, x=values * [3.0, 1000.0] + [10.0, -500.0])


def train_on_table(table: Path, out: Path) -> None:
    options = {name: JOB[name] for name in ("network", "hidden", "batch_size", "device")}
    vaezoo.train("autoencoder", data="npz", root=table, out=out, latent_dim=1, steps=20, **options)


def stop(model: str, out: Path, steps_before: int = 8, **options: Any) -> str:
    return said(
        lambda: train(model, out, callback=StopAfter(steps_before, signal.SIGTERM), **options)
    )


def resume(run: Path) -> None:
    resume_run(run, config_of(run), ProgressCallback())


def config_of(run: Path) -> Any:
    return vaezoo.load_run(run).config


def sharded_layers() -> list[str]:
    """The names of the sharded parameters of a wide model."""
    model = vaezoo.create_model(
        "autoencoder", data=(1, 16, 16), latent_dim=4, network="mlp", hidden=(160,)
    )
    apply_fsdp(model)
    return [name for name, parameter in model.named_parameters() if is_sharded(parameter)]


def objects() -> dict[str, Any]:
    """What the processes send to one another."""
    sent = {"rank": rank(), "nothing": None, "tensor": torch.arange(3, dtype=torch.bfloat16)}
    received = on_rank0_broadcast(lambda: sent)
    received["tensor"] = received["tensor"].tolist()
    return {
        "largest": all_reduce_max(rank(), 7 - rank()),
        "received": received,
        "gathered": gather_objects({"rank": rank()}),
    }


def second_order() -> float:
    """By how much gradients of gradients differ from those of one process."""

    def penalty(x: Tensor) -> Tensor:
        """A penalty on the gradient of something that looks at the batch as a whole."""
        loss = all_gather(x).pow(3).sum() * all_reduce(x.sum(0)).square().sum()
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        return slope.square().sum()

    noise = torch.Generator().manual_seed(0)
    batch = torch.randn(6, 2, dtype=torch.float64, generator=noise).requires_grad_()
    mine = local_chunk(batch.detach()).requires_grad_()
    (here,) = torch.autograd.grad(penalty(mine), mine)
    with local_only():
        (whole,) = torch.autograd.grad(penalty(batch), batch)
    # Every process adds the whole loss, and the slope is differentiated once more.
    return float((here / world_size() ** 2 - local_chunk(whole)).abs().max())


def evaluated() -> list[dict[str, float]]:
    """Held-out terms on a split that does not divide evenly: by all processes, and by one."""
    torch.manual_seed(0)
    model = vaezoo.create_model("dip_vae", data=(1, 16, 16), latent_dim=4, hidden=(8, 8))
    splits = vaezoo.load_data("sprites", examples=120, test=25, image_size=16)
    context = StepContext(torch.tensor(0), 10, 95)
    found = []
    for size in (4, 25, 64):
        batches = BatchLoader(splits.test, batch_size=size, device=torch.device("cpu"))
        assert model.loss is not None
        found.append(evaluate_loss(model, model.loss, batches, context, seed=3))
        with local_only():
            found.append(evaluate_loss(model, model.loss, batches, context, seed=3))
    return found


def clipped(folder: Path) -> list[float]:
    """The norm of the gradient that the optimizer gets in each of two steps with --grad-clip."""
    Adam: Any = OPTIMIZERS["adam"]
    honest, norms = Adam.step, []

    def step(optimizer: Any, *args: Any) -> Any:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        return honest(optimizer, *args)

    Adam.step = step
    try:
        train("vanilla", folder / "clipped", grad_clip=0.5, epochs=None, steps=2)
    finally:
        Adam.step = honest
    return norms


def broken(folder: Path) -> str:
    """The message of training in which one process has a non-finite loss and term at step 5."""
    honest = ELBOLoss.forward

    def breaks(loss: ELBOLoss, model: BaseVAE, batch: Any, context: StepContext) -> Any:
        output = honest(loss, model, batch, context)
        if loss.training and rank() == dist.get_world_size() - 1 and int(context.global_step) == 4:
            terms = {**output.terms, "rate": torch.tensor(math.inf)}
            return output._replace(loss=output.loss + math.inf, terms=terms)
        return output

    ELBOLoss.forward = breaks  # type: ignore[method-assign]
    try:
        return said(lambda: train("vanilla", folder / "broken"))
    finally:
        ELBOLoss.forward = honest  # type: ignore[method-assign]


def more(folder: Path) -> dict[str, Any]:
    """What is tested with two processes only."""
    train("autoencoder", folder / "fitted", epochs=1, sampler="gaussian_mixture", components=2)
    train("vanilla", folder / "whole")
    # Only rank 0 has the file.
    options = {"init_from": folder / f"weights-{rank()}" / "model.safetensors", "lr": 1e-46}
    if rank() == 0:
        shutil.copytree(folder / "whole", folder / "weights-0")
    train("vanilla", folder / "copied", **options)
    results = {"stopped": stop("vanilla", folder / "stopped")}
    for _ in range(2):  # the second finds it finished
        train("vanilla", folder / "stopped", auto_resume=True)
    resume(folder / "stopped_by_one")
    stop("autoencoder", folder / "for_one")
    train("vanilla", folder / "patient", epochs=9, patience=1, lr=0.1)
    results["sharded"] = stop("autoencoder", folder / "sharded", shard=True, **WIDE)
    config = config_of(folder / "sharded")
    resume_run(folder / "sharded", config, ProgressCallback())
    results["sharded_layers"] = sharded_layers()
    stop("autoencoder", folder / "options_stopped", **OPTIONS)
    resume(folder / "options_stopped")
    for shard in (False, True):
        out = folder / f"options_wide_{shard}"
        stop("autoencoder", out, **{**WIDE, **OPTIONS, **OPTIONS_WIDE, "shard": shard})
        resume(out)
    stop("autoencoder", folder / "for_one_whole", shard=True, **WIDE)
    for name, options in LARGE.items():
        train(name, folder / name, **options)
        stop(name, folder / f"{name}_sharded", shard=True, steps_before=2, **options)
        resume(folder / f"{name}_sharded")
        stop(name, folder / f"{name}_for_one", shard=True, steps_before=2, **options)
        config = config_of(folder / f"{name}_by_one")
        sharded = config.replace("train", shard=True)
        resume_run(folder / f"{name}_by_one", sharded, ProgressCallback())
    results["slope"] = said(
        lambda: train("rae", folder / "refused", shard=True, regulariser="gradient_penalty")
    )
    for name, options in {
        "does not divide": {"batch_size": 7},
        "too small": {"batch_size": 2, "network": "conv", "hidden": (8, 8)},
    }.items():
        results[name] = said(lambda: train("vanilla", folder / "refused", **options))  # noqa: B023
    return results


def main() -> None:
    training._draw_pictures = draw_some
    folder, rank, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    from evaluation_job import measured  # its folder is this script's, not the test's

    results: dict[str, Any] = {
        "objects": objects(),
        "second_order": second_order(),
        "evaluated": evaluated(),
        "measured": measured(),
    }
    train("autoencoder", folder / "same")
    if rank == 0:
        write_table(folder / "table.npz")
    dist.barrier()
    train_on_table(folder / "table.npz", folder / "on_table")
    train("autoencoder", folder / "normed", **NORMED)
    train("autoencoder", folder / "options", **OPTIONS)
    results["broken"] = broken(folder)
    results["clipped"] = clipped(folder)
    if count == 2:
        results |= more(folder)
    (folder / f"results-{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
