"""The mean of a loss over a split: every example counts once, however the batches fall."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Options, StepContext, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.losses.base import evaluate_loss
from vaezoo.models.distributions import Delta, diagonal_normal

CONTEXT = StepContext(torch.tensor(0), 1, 10)


class Copy(BaseVAE):
    """Its latent is the data itself."""

    def __init__(self) -> None:
        super().__init__(Options(), DataSpec(shape=(1,), domain="real"))
        self.latent_shape = (1,)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return Delta(x)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(z, torch.ones(()))


class Values(BaseLoss):
    """Terms of each example and of a whole batch, with and without noise."""

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        x = batch.x.flatten()
        terms = {"each": x.square(), "batch": x.max(), "noise": torch.randn(len(x))}
        return LossOutput(x.mean(), terms)


def found(batch_size: int, seed: int = 0, **options: bool) -> dict[str, float]:
    model, x = Copy(), torch.arange(10.0)[:, None]
    batches = BatchLoader(TensorSplit(x), batch_size=batch_size, device=torch.device("cpu"))
    loss = Values(Options(), model, model.data)
    return evaluate_loss(model, loss, batches, CONTEXT, seed, **options)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 64])
def test_each_example_counts_once_in_a_short_batch_too(batch_size: int) -> None:
    values = found(batch_size)
    assert values["loss"] == pytest.approx(4.5)
    assert values["each"] == pytest.approx(28.5)
    # A number for a batch counts for each of its examples.
    batches = torch.arange(10.0).split(batch_size)
    assert values["batch"] == pytest.approx(sum(float(b.max()) * len(b) for b in batches) / 10)


def test_only_a_sharded_model_computes_every_batch_in_every_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, honest = [], BatchLoader.sharded

    def sharded(loader: BatchLoader, all_to_all: bool = False) -> Iterator[tuple[int, Batch, bool]]:
        asked.append(all_to_all)
        return honest(loader, all_to_all)

    monkeypatch.setattr(BatchLoader, "sharded", sharded)
    assert found(4) == found(4, together=True)
    assert asked == [False, True]


def test_progress_is_in_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "vaezoo.losses.base.report_progress", lambda what, done, total: seen.append((done, total))
    )
    found(4)
    assert seen == [(0, 10), (4, 10), (8, 10)]


def test_the_noise_follows_from_the_seed_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    first = found(4)["noise"]
    after = torch.rand(())
    torch.manual_seed(5)
    assert after.equal(torch.rand(()))
    assert found(4)["noise"] == first
    assert found(4, seed=1)["noise"] != first
