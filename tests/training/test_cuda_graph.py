"""What only a GPU can show: recorded steps are the same steps. Runs by itself where CUDA is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.errors import OptionError
from vaezoo.runtime.device import Runtime
from vaezoo.training.cuda_graph import CUDAGraphStep, make_train_step
from vaezoo.training.options import TrainOptions
from vaezoo_vanilla.loss import ELBOLoss

pytestmark = pytest.mark.cuda

JOB: dict[str, Any] = {
    **{name: value for name, value in SMALL_JOB.items() if name != "epochs"},
    **{"examples": 320, "test": 64, "image_size": 32, "hidden": (8, 16), "latent_dim": 8},
    "batch_size": 32,
    "steps": 40,
    "log_every": 5,
    "schedule": "cosine",
    "grad_clip": 1.0,
    "device": "cuda",
    "precision": "fp32",
}


def weights(path: Path) -> dict[str, Tensor]:
    return load_file(path / "model.safetensors")


def test_replayed_steps_are_the_steps(tmp_path: Path) -> None:
    eager = vaezoo.train("vanilla", out=tmp_path / "eager", graph="off", **JOB)
    graphed = vaezoo.train("vanilla", out=tmp_path / "graphed", graph="on", **JOB)
    a, b = weights(eager.path), weights(graphed.path)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)
    assert graphed.summary["elbo"] == pytest.approx(eager.summary["elbo"], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "radam", "sgd"])
def test_replayed_steps_have_every_training_option(tmp_path: Path, optimizer: str) -> None:
    """Some of the steps are skipped; averages, warm-up and decay read tensors of the device."""
    job = {
        **{**JOB, "optimizer": optimizer, "lr": 1e-4, "weight_decay": 0.1, "lr_warmup": 10},
        **{"ema": 0.9, "accumulate": 2, "on_nonfinite": "skip", "skip_grad_norm": 1e3},
        **{"augment": ("flip", "crop")},
    }
    eager = vaezoo.train("vanilla", out=tmp_path / "eager", graph="off", **job)
    graphed = vaezoo.train("vanilla", out=tmp_path / "graphed", graph="on", **job)
    a, b = weights(eager.path), weights(graphed.path)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)
    skipped = [[x["skipped"] for x in run.metrics if "skipped" in x] for run in (eager, graphed)]
    assert skipped[0] == skipped[1]


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    runs = [vaezoo.train("vanilla", out=tmp_path / name, **JOB) for name in ("a", "b")]
    a, b = (weights(run.path) for run in runs)
    assert all(a[name].equal(b[name]) for name in a)


def test_what_cannot_be_recorded_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: Any
) -> None:
    honest = ELBOLoss.forward

    def reads_back(loss: ELBOLoss, *args: Any) -> Any:
        output = honest(loss, *args)
        if loss.training:
            float(output.loss)
        return output

    eager = vaezoo.train("vanilla", out=tmp_path / "eager", graph="off", **JOB)
    monkeypatch.setattr(ELBOLoss, "forward", reads_back)
    run = vaezoo.train("vanilla", out=tmp_path / "r", callback=notes, **JOB)
    assert len([line for line in notes.lines if "CUDA graph" in line]) == 1
    a, b = weights(eager.path), weights(run.path)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)


def test_on_gpu_and_cpu_the_numbers_agree(tmp_path: Path) -> None:
    """The first log window, before rounding has had time to grow."""
    lines = [
        vaezoo.train(
            "vanilla", out=tmp_path / device, **{**JOB, "device": device, "steps": 5}
        ).metrics[0]["terms"]
        for device in ("cpu", "cuda")
    ]
    # Noise is drawn by each device's own generator: the same in distribution only.
    assert lines[0]["distortion"] == pytest.approx(lines[1]["distortion"], rel=0.05)


def test_several_ranks_use_no_graph() -> None:
    model = vaezoo.create_model("vanilla", data=(1, 32, 32), hidden=(8, 16)).cuda()
    assert model.loss is not None

    def make(graph: str) -> object:
        return make_train_step(
            model,
            model.loss.cuda(),
            TrainOptions(graph=graph),
            runtime=Runtime(torch.device("cuda"), "fp32", world_size=2),
            total_steps=10,
            note=print,
        )

    assert not isinstance(make("auto"), CUDAGraphStep)
    with pytest.raises(OptionError, match="--graph on: several processes"):
        make("on")
