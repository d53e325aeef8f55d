"""Steps with gradients that are not finite: left out as if they had never been."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.data.base import Batch
from vaezoo.distributed.fsdp import clip_grad_norm, grad_norm
from vaezoo.errors import TrainingError
from vaezoo.losses.base import BaseLoss, LossOutput, Phase, StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import Runtime, precision_context
from vaezoo.training.options import TrainOptions
from vaezoo.training.state import finite_means
from vaezoo.training.step_guard import ALLOWED_RATE, MAX_EXCESS, StepGuard
from vaezoo.training.train_step import TrainStep

CPU = torch.device("cpu")
GOOD = [torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(6)]
BAD = torch.full((8, 1, 16, 16), math.nan)


def train(name: str, batches: list[Tensor], **options: Any) -> tuple[TrainStep, list[Tensor]]:
    """Steps over these batches, the noise of each drawn from the good ones before it."""
    torch.manual_seed(0)
    model = vaezoo.create_model(name, (1, 16, 16), **options)
    assert model.loss is not None
    updates = TrainStep(
        model,
        model.loss,
        TrainOptions(on_nonfinite="skip", grad_clip=1.0),
        runtime=Runtime(CPU, "fp32"),
        total_steps=10,
        note=print,
    )
    model.train()
    step, values = torch.zeros((), dtype=torch.int64), []
    with precision_context("fp32", True):
        for x in batches:
            torch.manual_seed(int(step))
            values.append(updates(Batch(x, None), StepContext(step, 10, 100), int(step)))
            step += int(x is not BAD)
    return updates, values


def state(updates: TrainStep) -> Iterator[tuple[str, Tensor]]:
    assert updates.model.loss is not None
    yield from updates.model.state_dict().items()
    yield from updates.model.loss.state_dict().items()
    for number, optimizer in enumerate(updates.optimizers):
        for parameter, kept in optimizer.state_dict()["state"].items():
            yield from ((f"{number}.{parameter}.{name}", value) for name, value in kept.items())


JOBS: dict[str, dict[str, Any]] = {
    "vanilla": {"hidden": (4, 4)},  # batch norm
    "factor_vae": {"network": "mlp", "hidden": (8,), "discriminator_hidden": (8,)},  # two phases
    "vq_vae": {"hidden": (4, 4), "codes": 8, "code_dim": 4},  # a codebook that moves by itself
}


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("bad", [(0,), (2,), (1, 4), (3, 3, 3)])
def test_a_skipped_step_leaves_no_trace(name: str, bad: tuple[int, ...]) -> None:
    """Parameters, moments, their counters, statistics of batch norm and codebooks: to the bit."""
    without, _ = train(name, GOOD, **JOBS[name])
    batches = list(GOOD)
    for place in sorted(bad, reverse=True):
        batches.insert(place, BAD)
    with_bad, _ = train(name, batches, **JOBS[name])
    ours, theirs = dict(state(with_bad)), dict(state(without))
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in ours), [
        key for key in ours if not ours[key].equal(theirs[key])
    ]
    assert with_bad.guard is not None
    assert with_bad.guard.read() == (len(bad), False)


def test_good_steps_are_the_same_with_and_without_the_guard(tmp_path: Path) -> None:
    skip = vaezoo.train("vanilla", out=tmp_path / "skip", on_nonfinite="skip", **SMALL_JOB)
    stop = vaezoo.train("vanilla", out=tmp_path / "stop", **SMALL_JOB)
    for a, b in zip(skip.model.parameters(), stop.model.parameters(), strict=True):
        assert a.equal(b)
    lines = [line for line in skip.metrics if line["kind"] == "train"]
    assert [line["skipped"] for line in lines] == [0]
    plain = [line for line in stop.metrics if line["kind"] == "train"]
    assert lines[0]["terms"] == plain[0]["terms"]


def step_of_one(policy: str, grad: float, loss: float, clip: float | None = None) -> Tensor:
    """The parameters [3] after a step from 0 with this loss and this gradient of each."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3))

        def on_train_step(self, step: Tensor) -> None:
            return

    model = Model()

    def forward(*_: Any) -> LossOutput:
        slope = (model.w * grad).sum()
        return LossOutput(slope - slope.detach() + loss, {})

    class Loss(nn.Module):
        def phases(self, _: Any) -> list[Phase]:
            return [Phase("train", list(model.parameters()), forward)]

    updates = TrainStep(
        cast("BaseVAE", model),
        cast("BaseLoss", Loss()),
        TrainOptions(on_nonfinite=policy, grad_clip=clip, lr=0.5),
        runtime=Runtime(CPU, "fp32"),
        total_steps=1,
        note=print,
    )
    updates(Batch(torch.zeros(1, 1), None), StepContext(torch.tensor(0), 1, 1), 0)
    return model.w.detach()


class TestMeaning:
    """A step is not finite if its loss or a value of a gradient is not finite."""

    @pytest.mark.parametrize("policy", ["stop", "skip"])
    @pytest.mark.parametrize("clip", [None, 1.0])
    def test_finite_gradients_of_an_infinite_norm_are_taken(
        self, policy: str, clip: float | None
    ) -> None:
        """Adam's first step is the learning rate, whatever the gradient's size."""
        moved = step_of_one(policy, grad=1.3e19 if clip is None else 3e38, loss=1.0, clip=clip)
        torch.testing.assert_close(moved, torch.full((3,), -0.5))

    @pytest.mark.parametrize(
        ("grad", "loss"), [(1.0, math.inf), (1.0, math.nan), (math.inf, 1.0), (math.nan, 1.0)]
    )
    def test_an_infinite_loss_or_gradient_is_skipped(self, grad: float, loss: float) -> None:
        assert step_of_one("skip", grad, loss).equal(torch.zeros(3))

    def test_the_norm_after_clipping(self) -> None:
        weight = nn.Parameter(torch.zeros(4))
        weight.grad = torch.tensor([3e30, -3e30, 3e30, 3e30])
        clip_grad_norm([weight], 10.0, grad_norm([weight]))
        torch.testing.assert_close(weight.grad, torch.tensor([5.0, -5.0, 5.0, 5.0]))
        clip_grad_norm([weight], 11.0, grad_norm([weight]))  # 10 is less: nothing changes
        torch.testing.assert_close(weight.grad, torch.tensor([5.0, -5.0, 5.0, 5.0]))


class TestGuard:
    def walk(self, bad: list[bool]) -> StepGuard:
        guard = StepGuard([nn.Linear(1, 1)], CPU)
        for one in bad:
            guard.begin()
            guard.bad.fill_(float(one))
            guard.end()
        return guard

    def test_a_row_of_them_is_too_many(self) -> None:
        assert self.walk([True] * int(MAX_EXCESS)).read() == (MAX_EXCESS, False)
        assert self.walk([True] * (int(MAX_EXCESS) + 1)).read()[1]

    def test_one_in_twenty_is_allowed_for_ever_and_one_in_ten_is_not(self) -> None:
        every = round(1 / ALLOWED_RATE) + 1
        assert not self.walk([step % every == 0 for step in range(3000)]).read()[1]
        assert self.walk([step % (every // 2) == 0 for step in range(3000)]).read()[1]

    def test_a_peak_is_seen_though_it_is_over_when_read(self) -> None:
        guard = self.walk([True] * 21 + [False] * 40)
        assert guard.read()[1]
        assert not guard.read()[1]

    def test_goes_on_after_a_stop(self) -> None:
        first, rest = [True, False, True] * 4, [True] * 17
        whole, begun = self.walk(first + rest), self.walk(first)
        resumed = StepGuard([nn.Linear(1, 1)], CPU)
        resumed.load_state_dict(
            {name: tensor.clone() for name, tensor in begun.state_dict().items()}
        )
        for _ in rest:
            resumed.begin()
            resumed.bad.fill_(1.0)
            resumed.end()
        assert resumed.read() == whole.read()


class Poisoned:
    """Makes the gradients of some steps infinite, by the values of their images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
        honest = TrainStep.__call__

        def poisoned(updates: TrainStep, batch: Batch, context: StepContext, step: int) -> Tensor:
            if wrong(step):
                batch = Batch(batch.x * math.inf, batch.y)
            return honest(updates, batch, context, step)

        monkeypatch.setattr(TrainStep, "__call__", poisoned)


TINY = {**SMALL_JOB, "epochs": 3, "log_every": 4}


def test_a_run_counts_them_and_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Poisoned(monkeypatch, lambda step: step in (2, 3, 9))
    run = vaezoo.train("vanilla", out=tmp_path / "r", on_nonfinite="skip", **TINY)
    train_lines = [line for line in run.metrics if line["kind"] == "train"]
    # Windows end at 4, 6, 10, 12, 16, 18.
    assert [line["skipped"] for line in train_lines] == [2, 0, 1, 0, 0, 0]
    assert all(math.isfinite(value) for line in train_lines for value in line["terms"].values())
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_a_window_of_nothing_else_has_no_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Poisoned(monkeypatch, lambda step: step < 6)
    run = vaezoo.train("vanilla", out=tmp_path / "r", on_nonfinite="skip", **TINY)
    assert [line["skipped"] for line in run.metrics if line["kind"] == "train"][:2] == [4, 2]
    assert set(run.metrics[0]["terms"].values()) == {None}
    json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[0])


def test_gives_up_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Poisoned(monkeypatch, lambda step: step >= 6)
    job = {**TINY, "epochs": 20}
    with pytest.raises(TrainingError) as caught:
        vaezoo.train("vanilla", out=tmp_path / "r", on_nonfinite="skip", **job)
    said = str(caught.value)
    assert "22 steps had to be skipped" in said  # the log line after the 21st
    assert "at step 25" in said
    assert "on_nonfinite skip" not in said  # it is on
    assert "\n" not in said


def test_no_reading_within_a_window(host_reads: list[str]) -> None:
    found = []
    more = {"skip_grad_norm": 1e4, "grad_clip": 1.0, "ema": 0.9, "accumulate": 2}
    for options in ({}, {"on_nonfinite": "skip", **more}):
        model = vaezoo.create_model("vanilla", (1, 16, 16), hidden=(4, 4))
        assert model.loss is not None
        updates = TrainStep(
            model,
            model.loss,
            TrainOptions(**options),
            runtime=Runtime(CPU, "fp32"),
            total_steps=10,
            note=print,
        )
        before = len(host_reads)
        with precision_context("fp32", True):
            for step in range(3):
                updates(Batch(GOOD[0], None), StepContext(torch.tensor(step), 10, 100), step)
        found.append(len(host_reads) - before)
    assert found[0] == found[1]


def test_the_terms_of_a_window_leave_out_what_was_skipped() -> None:
    rows = [[1.0, 2.0], [math.nan, 3.0], [3.0, math.inf], [5.0, 4.0]]
    assert finite_means(rows, 2) == [3.0, 3.0]
    assert finite_means([[math.nan]], 1) == [None]
