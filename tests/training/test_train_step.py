"""Our Adam is torch's to the bit, and training starts without torch.compile's machinery."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.data.base import Batch
from vaezoo.losses.base import StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.training.train_step import Adam
from vaezoo_vanilla.loss import ELBOLoss


def trained(kind: type[torch.optim.Adam], steps: int, fused: bool) -> list[Tensor]:
    """Weights and moments after some steps, with a save and a load between them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    x = torch.randn(16, 5)
    optimizer = kind(model.parameters(), lr=0.01, betas=(0.8, 0.95), fused=fused)
    for step in range(steps):
        if step == steps // 2:
            saved = optimizer.state_dict()
            optimizer = kind(model.parameters(), lr=0.5, fused=fused)
            optimizer.load_state_dict(saved)
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.parameters(), *moments]


@pytest.mark.parametrize("fused", [True, False])
def test_it_is_adam(fused: bool) -> None:
    ours, theirs = trained(Adam, 8, fused), trained(torch.optim.Adam, 8, fused)
    assert len(ours) == 4 + 4 * 3
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_step_is_not_differentiated() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = Adam([weight])
    weight.square().sum().backward()
    optimizer.step()
    assert weight.is_leaf
    assert weight.grad is not None
    assert not weight.grad.requires_grad


def given_to_the_loss(
    out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> list[tuple[Batch, StepContext]]:
    """The batch and the context of each call of the loss in training and validation."""
    honest, calls = ELBOLoss.forward, []

    def forward(loss: ELBOLoss, model: BaseVAE, batch: Batch, context: StepContext) -> Any:
        step = context.global_step.clone()
        calls.append((Batch(batch.x.clone(), batch.y), context._replace(global_step=step)))
        return honest(loss, model, batch, context)

    with monkeypatch.context() as patch:
        patch.setattr(ELBOLoss, "forward", forward)
        vaezoo.train("vanilla", out=out, **{**SMALL_JOB, "epochs": 2, **options})
    return calls


def test_what_a_loss_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """96 training examples in 6 batches of 16, twice; after each epoch 24 held-out examples.

    At the end the held-out examples are seen twice more, for the findings about the training.
    """
    calls = given_to_the_loss(tmp_path / "r", monkeypatch)
    steps = [*range(6), 6, *range(6, 12), 12, 12, 12]
    assert [int(context.global_step) for _, context in calls] == steps
    assert {context.num_examples for _, context in calls} == {96}
    assert {context.total_steps for _, context in calls} == {12}
    assert [len(batch.x) for batch, _ in calls] == [16] * 6 + [24] + [16] * 6 + [24] * 3


def test_the_order_of_examples_follows_from_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, other = (
        given_to_the_loss(tmp_path / name, monkeypatch, seed=seed, epochs=1)[0][0].x
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert first.equal(again)
    assert not first.equal(other)


def test_training_brings_in_nothing_of_compiling(tmp_path: Path) -> None:
    """It takes two seconds to import, before the first step."""
    program = f"""
import sys, vaezoo
vaezoo.train("vanilla", data="sprites", examples=64, test=16, image_size=16, hidden=(4, 4),
             steps=2, out={str(tmp_path / "run")!r}, device="cpu")
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split()[-1] == "False", done.stderr
