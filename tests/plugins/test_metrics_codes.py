"""Codebook use of posteriors whose codes are given."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, Options, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.evaluate import Evaluation, evaluate, select_metrics
from vaezoo.evaluation.metric import EvalContext
from vaezoo.models.distributions import Delta
from vaezoo.models.likelihoods import GaussianLikelihood


class Codes(Delta):
    def __init__(
        self, indices: Tensor, count: int, codebooks: int | None, sections: tuple[int, ...]
    ) -> None:
        super().__init__(indices.float())
        self.indices, self.num_codes, self.sections = indices, count, sections
        if codebooks is not None:
            self.codebooks = codebooks


class Rounding(BaseVAE):
    """Its codes are its examples."""

    def __init__(
        self, count: int, codebooks: int | None = None, sections: tuple[int, ...] = ()
    ) -> None:
        super().__init__(Options(), DataSpec(shape=(sum(sections) or 2,), domain="real"))
        self.latent_shape = self.data.shape
        self.count, self.codebooks, self.sections = count, codebooks, sections
        self.likelihood = GaussianLikelihood(
            DataSpec(shape=self.data.shape, domain="real"), 1.0, learned=False
        )

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return Codes(x.long(), self.count, self.codebooks, self.sections)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(z)


def measure(
    x: Tensor,
    count: int,
    tags: tuple[str, ...] = ("discrete",),
    codebooks: int | None = None,
    sections: tuple[int, ...] = (),
) -> Evaluation:
    batches = BatchLoader(TensorSplit(x.float()), batch_size=3, device=torch.device("cpu"))
    metrics = select_metrics(["code_use", "code_perplexity"])
    model = Rounding(count, codebooks, sections)
    return evaluate(EvalContext(model, frozenset(tags), batches), metrics)


def test_all_alike_and_one_alone() -> None:
    result = measure(torch.arange(8).view(4, 2), 8)
    assert result.metrics["code_use"].value == 1.0
    assert result.metrics["code_perplexity"].value == pytest.approx(8.0)
    result = measure(torch.full((4, 2), 3), 8)
    assert result.metrics["code_use"].value == pytest.approx(1 / 8)
    assert result.metrics["code_perplexity"].value == pytest.approx(1.0)


def test_counts_are_of_all_batches_together() -> None:
    """Half of the positions have code 0, the rest four codes alike: not a mean over batches."""
    x = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4]])
    result = measure(x, 10)
    assert result.metrics["code_use"].value == pytest.approx(0.5)
    entropy = 0.5 * math.log(2) + 0.5 * math.log(8)
    assert result.metrics["code_perplexity"].value == pytest.approx(math.exp(entropy))


def test_several_codebooks_are_counted_apart() -> None:
    """The first has the codes 0 to 3 alike, the second code 5 alone; together there are 5 codes."""
    x = torch.stack([torch.arange(4), torch.full((4,), 5)], 1)
    result = measure(x, 10, codebooks=2)
    assert result.metrics["code_use"].value == pytest.approx((0.4 + 0.1) / 2)
    assert result.metrics["code_use"].note == "of 10 codes; mean of 2 codebooks: 0.400, 0.100"


def test_codebooks_of_sections_of_a_sequence_are_counted_apart() -> None:
    """The first position has codes 0 to 3 alike, the two others code 0 alone: not 4 of 10."""
    x = torch.stack([torch.arange(4), torch.zeros(4, dtype=torch.int64)], 1)[:, [0, 1, 1]]
    result = measure(x, 10, sections=(1, 2))
    assert result.metrics["code_use"].note == "of 10 codes; mean of 2 codebooks: 0.400, 0.100"
    assert result.metrics["code_perplexity"].value == pytest.approx((4 + 1) / 2)
    assert result.metrics["code_perplexity"].value == pytest.approx((4 + 1) / 2)
    assert result.metrics["code_perplexity"].note == "of 10 codes; mean of 2 codebooks: 4.0, 1.0"


def test_models_without_codes_have_none() -> None:
    number = measure(torch.zeros(4, 2), 8, tags=()).metrics["code_use"]
    assert number.value is None
    assert number.note == "its latents are no codes"
