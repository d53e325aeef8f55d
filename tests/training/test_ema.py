"""Averages of the weights: their closed form, what is averaged, and who uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import vaezoo
from small_jobs import SMALL_JOB
from toy_steps import take, toy_batches, toy_step
from vaezoo.losses.base import evaluate_loss
from vaezoo.runs.evaluation import eval_loader
from vaezoo.training.ema import WeightAverages


def closed_form(history: list[Tensor], decay: float) -> Tensor:
    """Σ_t w_t ∏_{s>t} (1 - w_s) p_t with w_0 = 1 for the initial weights, then by step."""
    weights = [1.0, *(max(1 - decay, 9 / (10 + t)) for t in range(len(history) - 1))]
    total = torch.zeros_like(history[0], dtype=torch.float64)
    for t, value in enumerate(history):
        later = 1.0
        for weight in weights[t + 1 :]:
            later *= 1 - weight
        total += weights[t] * later * value.double()
    return total


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_closed_form(decay: float) -> None:
    updates = toy_step(ema=decay, lr=0.1)
    names = ("net.0.weight", "net.1.bias", "net.1.running_var")
    history = {name: [updates.model.state_dict()[name].clone()] for name in names}
    for step, x in enumerate(toy_batches()):
        take(updates, [x], step)
        for name in names:
            history[name].append(updates.model.state_dict()[name].clone())
    assert updates.ema is not None
    for name in names:
        expected = closed_form(history[name], decay)
        torch.testing.assert_close(
            updates.ema.averages[name].double(), expected, rtol=1e-5, atol=1e-6
        )
        assert not torch.allclose(expected.float(), history[name][-1], atol=1e-4)


def test_what_is_averaged() -> None:
    """Trained parameters and batch norm's running statistics; no other buffer."""
    updates = toy_step(ema=0.9)
    updates.model.net[0].bias.requires_grad_(False)
    averages = WeightAverages(updates.model, 0.9).averages.keys()
    left_out = {"seen", "net.0.bias", "net.1.num_batches_tracked"}
    assert averages == updates.model.state_dict().keys() - left_out
    vq = vaezoo.create_model("vq_vae", (1, 16, 16), hidden=(4, 4), codes=8, code_dim=4)
    moved = [n for n, _ in vq.named_buffers() if "codebook" in n]
    assert moved
    assert not {*WeightAverages(vq, 0.9).averages} & {*moved}


def test_the_model_has_them_for_a_time() -> None:
    updates = toy_step(ema=0.9, lr=0.1)
    take(updates, toy_batches(4))
    assert updates.ema is not None
    before = {n: (t.clone(), t.data_ptr()) for n, t in updates.model.state_dict().items()}
    with updates.ema.applied():
        inside = updates.model.state_dict()
        for name, average in updates.ema.averages.items():
            assert inside[name].equal(average)
        assert inside["seen"].equal(before["seen"][0])
    for name, tensor in updates.model.state_dict().items():
        assert tensor.equal(before[name][0])
        assert tensor.data_ptr() == before[name][1]  # a CUDA graph reads this address


JOB: dict[str, Any] = {**SMALL_JOB, "epochs": 2, "ema": 0.9}


def read(run: vaezoo.Run, name: str) -> dict[str, Tensor]:
    newest = max((run.path / "checkpoint").iterdir())
    return load_file(newest / f"{name}.safetensors")


def test_a_run_ends_with_the_averages(tmp_path: Path) -> None:
    run = vaezoo.train("vanilla", out=tmp_path / "r", **JOB)
    raw, averages = read(run, "model"), read(run, "ema")
    final = load_file(run.path / "model.safetensors")
    assert averages.keys() < raw.keys() == final.keys()
    for name, tensor in final.items():
        assert tensor.equal(averages.get(name, raw[name])), name
    assert not final["decoder.0.weight" if "decoder.0.weight" in final else max(averages)].equal(
        raw["decoder.0.weight" if "decoder.0.weight" in final else max(averages)]
    )
    # The validation of the last epoch is that of the final model.
    config = run.config
    batches = eval_loader(config, run.splits, "validation", torch.device("cpu"))
    steps = run.metrics[-1]["step"]
    context = vaezoo.StepContext(torch.tensor(steps), steps, 96)
    terms = evaluate_loss(run.model, run.model.loss, batches, context, config.train.seed)
    said = [line for line in run.metrics if line["kind"] == "validation"][-1]["terms"]
    assert terms == pytest.approx({n: said[n] for n in terms}, rel=1e-5)


def test_averaging_does_not_change_the_training(tmp_path: Path) -> None:
    plain = vaezoo.train("vanilla", out=tmp_path / "plain", **{**JOB, "ema": None})
    run = vaezoo.train("vanilla", out=tmp_path / "r", **JOB)
    a, b = read(plain, "model"), read(run, "model")
    assert all(a[name].equal(b[name]) for name in a)


def test_the_best_weights_are_averages(tmp_path: Path) -> None:
    """One epoch is the best so far: its averages are kept, and become the model."""
    run = vaezoo.train("vanilla", out=tmp_path / "r", patience=5, **{**JOB, "epochs": 1})
    best, averages = read(run, "best"), read(run, "ema")
    assert all(best[name].equal(averages[name]) for name in averages)
    final = load_file(run.path / "model.safetensors")
    assert all(best[name].equal(final[name]) for name in final)


def test_a_stopped_run_is_evaluated_with_the_averages(tmp_path: Path) -> None:
    from small_jobs import StopAfter
    from vaezoo.errors import RunStopped

    with pytest.raises(RunStopped):
        vaezoo.train("vanilla", out=tmp_path / "r", callback=StopAfter(8), **JOB)
    averages = load_file(max((tmp_path / "r" / "checkpoint").iterdir()) / "ema.safetensors")
    weights = load_file(tmp_path / "r" / "model.safetensors")
    assert all(weights[name].equal(averages[name]) for name in averages)
    assert json.loads((tmp_path / "r" / "run.json").read_text())
