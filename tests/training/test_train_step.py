"""What a loss gets, and that training starts without torch.compile's machinery."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.data.base import Batch
from vaezoo.losses.base import Phase, StepContext, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.testing.subjects import ModelWithLoss
from vaezoo_vanilla.loss import ELBOLoss


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


@pytest.mark.parametrize(("name", "frozen"), [("vanilla", "decoder"), ("vq_vae", "sampler")])
def test_frozen_parameters_of_a_phase_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch, name: str, frozen: str
) -> None:
    """A phase of all parameters, as docs/write_a_loss.md has it; vq_vae freezes its sampler."""
    pair = ModelWithLoss(name)
    model = pair.build()
    if name == "vanilla":
        model.get_submodule(frozen).requires_grad_(False)
    loss = loss_of(model)
    phases = [Phase("train", list(model.parameters()), loss)]
    monkeypatch.setattr(type(loss), "phases", lambda *_: phases)
    before = {name: value.clone() for name, value in model.named_parameters()}
    still = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert still
    assert all(name.startswith(frozen) for name in still)
    for values in pair.train(model, pair.batch(), 2):
        assert values.isfinite().all()
    moved = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert moved
    assert not moved & still
