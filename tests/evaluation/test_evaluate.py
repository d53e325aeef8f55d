"""Evaluation against closed forms, and whatever the order and size of its batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, Options, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.evaluate import Evaluation, evaluate, select_metrics
from vaezoo.evaluation.metric import EvalContext
from vaezoo.models.distributions import diagonal_normal
from vaezoo.models.likelihoods import GaussianLikelihood

ALL = ("elbo", "importance")


class Known(BaseVAE):
    """p(z) = N(0, 1), p(x|z) = N(z, s²) on vectors, with its exact posterior: no gap at all."""

    def __init__(self, values: int, scale: float) -> None:
        super().__init__(Options(), DataSpec(shape=(values,), domain="real"))
        self.latent_shape = (values,)
        self.scale = scale
        self.likelihood = GaussianLikelihood(
            DataSpec(shape=self.data.shape, domain="real"), scale, learned=False
        )
        self.unused = nn.Parameter(torch.zeros(1))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        variance = self.scale**2 / (1 + self.scale**2)
        return diagonal_normal(x / (1 + self.scale**2), torch.full_like(x, math.sqrt(variance)))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(z)


def examples(count: int = 500, values: int = 3) -> Tensor:
    return torch.randn(count, values, generator=torch.Generator().manual_seed(1))


def measure(model: BaseVAE, x: Tensor, batch: int = 64, samples: int = 0) -> Evaluation:
    batches = BatchLoader(TensorSplit(x), batch_size=batch, device=torch.device("cpu"))
    setting = EvalContext(model, frozenset(ALL), batches, importance_samples=samples)
    return evaluate(setting, select_metrics(["default"]))


def test_bounds_of_a_model_without_gap() -> None:
    x, scale = examples(2000), 0.5
    model = Known(3, scale)
    result = measure(model, x, samples=3)
    marginal = diagonal_normal(torch.zeros(3), torch.full((3,), math.sqrt(1 + scale**2)))
    exact = marginal.log_prob(x)
    # Every importance weight is p(x) itself: the estimate is exact at any number of samples.
    assert result.log_likelihood == pytest.approx(exact.mean().item(), abs=1e-4)
    assert result.log_likelihood_standard_error == pytest.approx(
        (exact.std() / math.sqrt(2000)).item(), rel=1e-2
    )
    assert result.elbo == pytest.approx(exact.mean().item(), abs=0.1)
    assert result.elbo is not None
    assert result.rate is not None
    assert result.distortion is not None
    assert result.elbo == pytest.approx(-result.rate - result.distortion)


class Loose(Known):
    """Its posterior is the prior: the bound has a gap, which more samples close."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(torch.zeros_like(x), torch.ones_like(x))


def test_the_log_likelihood_takes_as_many_samples_as_it_is_asked_for() -> None:
    """Of one sample it is the ELBO, −½ log 2πs² − (x² + 1)/2s²; of many the likelihood itself."""
    x, scale = examples(2000, 1), 0.5
    elbo = -0.5 * math.log(2 * math.pi * scale**2) - (x.square() + 1) / (2 * scale**2)
    exact = diagonal_normal(torch.zeros(1), torch.full((1,), math.sqrt(1 + scale**2))).log_prob(x)
    assert float(exact.mean() - elbo.mean()) > 1.5
    one, few, many = (measure(Loose(1, scale), x, samples=k) for k in (1, 5, 1000))
    assert one.log_likelihood == pytest.approx(float(elbo.mean()), abs=0.2)
    assert many.log_likelihood == pytest.approx(float(exact.mean()), abs=0.05)
    assert few.log_likelihood is not None
    assert float(elbo.mean()) + 0.5 < few.log_likelihood < float(exact.mean()) - 0.1
    assert [result.importance_samples for result in (one, few, many)] == [1, 5, 1000]


def test_reconstruction_by_closed_form() -> None:
    x, scale = examples(), 0.5
    shrink = 1 / (1 + scale**2)
    result = measure(Known(3, scale), x)
    assert result.mse == pytest.approx(((1 - shrink) ** 2 * x.square().mean()).item(), rel=1e-5)
    spread = (x - x.mean(0)).square().sum(1).mean()
    r2 = 1 - (1 - shrink) ** 2 * x.square().sum(1).mean() / spread
    assert result.reconstruction_r2 == pytest.approx(r2.item(), rel=1e-5)
    assert result.active_units == 3
    assert result.examples == 500
    assert result.bits_per_dim is None
    assert "bits_per_dim" in result.notes
    assert result.psnr is None


def test_a_latent_that_does_not_move_is_not_active() -> None:
    x = examples()
    x[:, 1] = 0.3
    assert measure(Known(3, 0.5), x).active_units == 2


@pytest.mark.parametrize("batch", [1, 7, 499, 500, 1000])
def test_means_are_over_examples_not_batches(batch: int) -> None:
    x, whole = examples(), measure(Known(3, 0.5), examples())
    parts = measure(Known(3, 0.5), x, batch)
    assert parts.mse == pytest.approx(whole.mse, rel=1e-5)
    assert parts.reconstruction_r2 == pytest.approx(whole.reconstruction_r2, rel=1e-5)
    assert parts.rate == pytest.approx(whole.rate, rel=1e-5)


def test_no_number_where_there_is_none() -> None:
    batches = BatchLoader(TensorSplit(examples()), batch_size=64, device=torch.device("cpu"))
    setting = EvalContext(Known(3, 0.5), frozenset(), batches, importance_samples=5)
    result = evaluate(setting, select_metrics(["default"]))
    assert result.elbo is None
    assert result.rate is None
    assert result.log_likelihood is None
    assert result.importance_samples == 0
    assert "no ELBO" in result.notes["elbo"]
    assert result.mse is not None


def test_it_leaves_no_trace() -> None:
    model = Known(3, 0.5).train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = measure(model, examples(), samples=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert measure(model, examples(), samples=2) == first
